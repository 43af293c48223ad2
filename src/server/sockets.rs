//! Who listens in this network namespace, as the kernel's tables say it (proc(5): /proc/net/tcp).
//!
//! A table with a line that cannot be read is refused whole: half of it would prove nothing.

use std::io::{self, BufRead};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a listening socket.
const LISTENING: &str = "0A";

/// Returns the addresses that are listened on. IPv4-mapped IPv6 addresses are returned as IPv4.
///
/// The kernel puts listeners first; what follows may be tens of thousands of connections, and is not read.
pub(super) fn listeners(table: impl BufRead) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "a line of the table has another form");
        let local = fields.next().and_then(address).ok_or_else(unreadable)?;
        let state = fields.nth(1).ok_or_else(unreadable)?;
        if state != LISTENING {
            break;
        }
        found.push(local);
    }
    Ok(found)
}

// The kernel prints each word of the address as a number of this machine: 0100007F on most.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1289 1 0000000000000000 100 0 0 10 0
   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 1350 1 0000000000000000 100 0 0 10 0
   2: 0502010A:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1351 1 0000000000000000 100 0 0 10 0
   3: 0100007F:1F90 0100007F:A1B2 01 00000000:00000000 00:00000000 00000000     0        0 1400 1 0000000000000000 20 4 30 10 -1
   4: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1350 1 0000000000000000 100 0 0 10 0
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9041 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:0BB9 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9042 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:0BBA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9043 1 0000000000000000 100 0 0 10 0
   3: B80D01200000000000000000010000FF:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9044 1 0000000000000000 100 0 0 10 0
   4: 0000000000000000FFFF00000502010A:0BBB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9045 1 0000000000000000 100 0 0 10 0
";

    fn read(table: &str) -> Vec<String> {
        listeners(table.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
    }

    // The excerpts are of a little-endian machine, as nearly all are.
    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_read_and_connections_are_not() {
        assert_eq!(read(TCP), ["127.0.0.1:8080", "0.0.0.0:3000", "10.1.2.5:3000"]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn ipv6_addresses_are_four_words_and_mapped_ones_are_ipv4() {
        let expected = ["[::]:3000", "[::1]:3001", "127.0.0.1:3002", "[2001:db8::ff00:1]:443", "10.1.2.5:3003"];
        assert_eq!(read(TCP6), expected);
    }

    #[test]
    fn an_empty_table_has_no_listeners_and_a_strange_one_is_refused() {
        assert_eq!(read("  sl  local_address rem_address   st\n"), [""; 0]);
        assert_eq!(read(""), [""; 0]);
        for line in ["   0: 0100007F 00000000:0000 0A", "   0: 0100:1F90 00000000:0000 0A", "   0: 0100007F:1F90", "x"]
        {
            assert!(listeners(format!("header\n{line}\n").as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn the_kernels_own_tables_name_a_socket_that_listens() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let socket = std::net::TcpListener::bind(address).unwrap();
            let table = std::io::BufReader::new(std::fs::File::open("/proc/net/tcp").unwrap());
            assert!(listeners(table).unwrap().contains(&socket.local_addr().unwrap()), "{address}");
        }
    }
}
