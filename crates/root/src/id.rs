//! Public names of a store and of a root key.

use crypto::random::Random;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Its length in bytes.
            pub const LEN: usize = 16;

            /// The id that was stored as `bytes`.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes, to be stored.
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// The public name of a root key: tells keys apart and says nothing of the key.
    RootKeyId
}

id! {
    /// The name of a store, drawn when it was made. Its parts know each other by it.
    StoreId
}

impl StoreId {
    /// The name of a new store.
    pub fn random(random: &dyn Random) -> Self {
        let mut id = [0; Self::LEN];
        random.fill(&mut id);
        Self(id)
    }
}
