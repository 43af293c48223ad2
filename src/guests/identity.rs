//! Who a device's guest is.

use std::fmt::Write;
use std::str::FromStr;

use crate::directory::Generation;
use crate::model::{Principal, PrincipalId, PrincipalKind, TenantId, TokenKey};

/// Derives guests from devices, within one tenant and under one key.
pub struct Guests {
    key: TokenKey,
    tenant: TenantId,
}

impl Guests {
    /// Returns the guests of `tenant`. `key` names them, so it must outlive every key of tokens.
    pub fn new(key: TokenKey, tenant: TenantId) -> Self {
        Self { key, tenant }
    }

    /// Returns the tenant of every guest.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Returns a device's guest, the same one on every replica.
    ///
    /// The principal is derived, not stored: two first calls cannot make two (contracts §5.2).
    ///
    /// # Panics
    ///
    /// Never: a UUID is visible ASCII.
    pub fn principal(&self, device_id: &str, generation: Generation) -> Principal {
        let tenant = self.tenant.as_str().as_bytes();
        let digest = match generation {
            Generation(0) => self.key.digest("device", &[tenant, device_id.as_bytes()]),
            Generation(later) => self.key.digest("device", &[tenant, device_id.as_bytes(), &later.to_be_bytes()]),
        };
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(into, from)| *into = from);
        let uuid = uuid::Builder::from_custom_bytes(bytes).into_uuid();
        Principal {
            kind: PrincipalKind::Anonymous,
            id: PrincipalId::from_str(&format!("anon:{uuid}")).expect("a UUID is visible ASCII"),
            tenant: self.tenant.clone(),
        }
    }

    /// Returns the key that the directory files a device under: a keyed hash in hex, because the id is a secret.
    pub fn device_key(&self, device_id: &str) -> String {
        let digest = self.key.digest("directory", &[self.tenant.as_str().as_bytes(), device_id.as_bytes()]);
        digest.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn guests(tenant: &str) -> Guests {
        Guests::new(TokenKey::new(1, &[7; 32]).unwrap(), tenant.parse().unwrap())
    }

    #[test]
    fn a_guest_is_the_same_for_the_same_device_and_tenant_only() {
        let guest = |device: &str| guests("default").principal(device, Generation(0)).id;
        assert_eq!(guest("phone"), guest("phone"));
        assert_ne!(guest("phone"), guest("Phone"));
        let text = guest("phone").to_string();
        assert_eq!(Uuid::parse_str(text.strip_prefix("anon:").unwrap()).unwrap().get_version_num(), 8);
        assert_ne!(guests("other").principal("phone", Generation(0)).id, guest("phone"));
        assert_ne!(guests("default").principal("phone", Generation(1)).id, guest("phone"));
    }

    #[test]
    fn the_directorys_key_of_a_device_is_64_hex_digits_and_not_the_guests_name() {
        let key = guests("default").device_key("phone");
        assert!(key.len() == 64 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{key}");
        assert_eq!(key, guests("default").device_key("phone"));
        assert_ne!(key, guests("other").device_key("phone"));
        let guest = guests("default").principal("phone", Generation(0)).id.to_string();
        assert!(!guest.contains(key.get(..8).unwrap()));
    }
}
