//! Where a request comes from: which peers are believed about it, and what the application is told.

use std::net::IpAddr;

use http::header;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use pingora::http::RequestHeader;
use pingora::proxy::Session as Exchange;

use crate::wire::headers::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};

/// Folded names that only a trusted proxy may write.
const FORWARDED: [&str; 19] = [
    "forwarded",
    "xforwardedfor",
    "xforwardedproto",
    "xforwardedhost",
    "xforwardedport",
    "xforwardeduri",
    "xforwardedprefix",
    "xforwardedmethod",
    "xforwardedserver",
    "xoriginalurl",
    "xrewriteurl",
    "xrealip",
    "xoriginaluri",
    "xoriginalmethod",
    "xforwardedscheme",
    "xforwardedssl",
    "xclientip",
    "xclusterclientip",
    "trueclientip",
];

/// Who is at the other end of a connection. Also an extension of every request on the `ext_authz`
/// port, put there by its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A peer with an address, in its canonical form.
    Address(IpAddr),
    /// A peer on the unix socket of the `ext_authz` port: the file's mode says who may open it.
    Socket,
}

/// The networks of proxies that are believed about the requests they pass on.
#[derive(Clone, Debug)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Returns the set of all addresses in `networks`.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Returns whether a peer is believed: the one place that decides it.
    pub fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => self.0.iter().any(|network| network.contains(&address)),
            Peer::Socket => true,
        }
    }

    /// Returns the client behind trusted proxies: the right-most address that is not one of them.
    pub fn client_address(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        if !self.trusts(Peer::Address(peer)) {
            return peer;
        }
        let values: Vec<&str> =
            headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
        let mut nearest = peer;
        for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
            // What cannot be read ends the chain: entries further left are unverified.
            let Ok(address) = hop.trim().parse::<IpAddr>() else { return nearest };
            nearest = address;
            if !self.trusts(Peer::Address(address)) {
                return nearest;
            }
        }
        nearest
    }
}

impl Peer {
    /// Returns the peer's address; `None` for a socket.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Socket => None,
        }
    }
}

/// Returns whether only a trusted proxy may write a header, by its name without anything but
/// letters and digits.
pub(super) fn is_for_proxies(folded: &str) -> bool {
    FORWARDED.contains(&folded)
}

/// Returns the peer of an exchange on the proxy port; `None` on a unix socket, whose peers are not believed.
pub(super) fn peer_of(exchange: &Exchange) -> Option<Peer> {
    let address = exchange.client_addr()?.as_inet()?;
    Some(Peer::Address(address.ip().to_canonical()))
}

/// Returns whether an exchange came over TLS.
pub(super) fn is_tls(exchange: &Exchange) -> bool {
    exchange.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

/// Tells the application where the request really came from; `peer` is the address it came from.
pub fn forward(
    request: &mut RequestHeader,
    peer: Option<HeaderValue>,
    peer_is_trusted: bool,
    tls: bool,
) -> pingora::Result<()> {
    // What an untrusted peer wrote was removed by `strip`: only a trusted proxy's word can be there.
    let said = |request: &RequestHeader, name| peer_is_trusted && request.headers.contains_key(name);
    if let Some(peer) = peer {
        let chain = if said(request, X_FORWARDED_FOR) { lengthen(&request.headers, &peer)? } else { peer };
        request.insert_header(X_FORWARDED_FOR, chain)?;
    }
    if !said(request, X_FORWARDED_PROTO) {
        let scheme = HeaderValue::from_static(if tls { "https" } else { "http" });
        request.insert_header(X_FORWARDED_PROTO, scheme)?;
    }
    if !said(request, X_FORWARDED_HOST)
        && let Some(host) = request.headers.get(header::HOST).cloned()
    {
        request.insert_header(X_FORWARDED_HOST, host)?;
    }
    Ok(())
}

fn lengthen(headers: &HeaderMap, peer: &HeaderValue) -> pingora::Result<HeaderValue> {
    let before = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let chain: Vec<&str> = before.chain(peer.to_str()).collect();
    HeaderValue::from_str(&chain.join(", "))
        .map_err(|error| pingora::Error::because(pingora::ErrorType::InternalError, "x-forwarded-for", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_hop_that_is_no_proxy_of_ours() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let client = |peer: &str, chain: &str| {
            let mut headers = HeaderMap::new();
            headers.append(X_FORWARDED_FOR, chain.parse().unwrap());
            trusted.client_address(&headers, peer.parse().unwrap()).to_string()
        };
        assert_eq!(client("192.0.2.1", "1.1.1.1"), "192.0.2.1", "a stranger is not believed");
        assert_eq!(client("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2"), "1.1.1.1");
        assert_eq!(client("10.0.0.1", "6.6.6.6, junk, 10.0.0.2"), "10.0.0.2");
        assert_eq!(client("10.0.0.1", ""), "10.0.0.1");
    }
}
