//! Roles that have no state the catalogue keeps: they are known while they say that they live.

use serde::{Deserialize, Serialize};
use vstack_core::keys::{Canonical, DerivedKey, Mac};

/// Such a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Where uploads go.
    Uploader,
    /// Where plain readers find whole chunks.
    Gateway,
}

impl Service {
    /// `GET` lists the addresses.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Uploader => "/uploaders",
            Self::Gateway => "/gateways",
        }
    }

    const fn purpose(self) -> &'static str {
        match self {
            Self::Uploader => "vstack.uploader.1",
            Self::Gateway => "vstack.gateway.1",
        }
    }
}

/// Body of `POST /uploaders/heartbeat` and `POST /gateways/heartbeat`: where the role is, signed with the grant key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHeartbeat {
    pub url: String,
    pub mac: Mac,
}

impl ServiceHeartbeat {
    #[must_use]
    pub fn signed(key: &DerivedKey, service: Service, url: String) -> Self {
        let mac = key.sign(&canonical(service, &url));
        Self { url, mac }
    }

    /// Whether it was signed with this key, as a heartbeat of this service.
    #[must_use]
    pub fn verifies(&self, key: &DerivedKey, service: Service) -> bool {
        key.verifies(&canonical(service, &self.url), &self.mac)
    }
}

fn canonical(service: Service, url: &str) -> Canonical {
    Canonical::new(service.purpose()).bytes(url.as_bytes())
}
