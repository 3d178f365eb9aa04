//! The keyring itself.

use std::sync::Arc;

use crypto::{context::EncryptionContext, random::Random, record::RootKey, secret::SecretVec};
use iam::{AccountId, Action, Authorized, Caller, Region};

use crate::{
    audit::AuditLog,
    clock::Clock,
    error::KeyringError,
    event::KeyEvent,
    key::{AliasName, KeyArgument, KeyArn},
    metadata::{
        Alias, CreateKey, DataKeyLen, KeyMetadata, Listed, MaterialId, Page, PendingWindow,
        Rotation, RotationStatus, Service, Tag,
    },
    observer::Observer,
    store::KeyStore,
};

/// What a keyring is made of.
pub struct Options {
    /// Where records are kept.
    pub store: Arc<dyn KeyStore>,
    /// What they are sealed under.
    pub root: RootKey,
    /// Where every use is written.
    pub audit: AuditLog,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Keys and nonces.
    pub random: Arc<dyn Random>,
    /// Whose keys these are.
    pub account: AccountId,
    /// In which region they say they are.
    pub region: Region,
    /// Told of every request.
    pub observer: Arc<dyn Observer>,
}

/// The answer of Encrypt.
#[derive(Debug)]
pub struct Encrypted {
    /// The ciphertext blob.
    pub ciphertext: Vec<u8>,
    /// The key it is sealed under.
    pub key: KeyArn,
}

/// The answer of Decrypt.
#[derive(Debug)]
pub struct Decrypted {
    /// What was sealed.
    pub plaintext: SecretVec,
    /// The key it was sealed under.
    pub key: KeyArn,
    /// The version of the key's material.
    pub material: MaterialId,
}

/// The answer of ReEncrypt.
#[derive(Debug)]
pub struct ReEncrypted {
    /// The new blob.
    pub ciphertext: Vec<u8>,
    /// The key it was sealed under.
    pub source: KeyArn,
    /// The material it was sealed under.
    pub source_material: MaterialId,
    /// The key it is sealed under now.
    pub destination: KeyArn,
    /// The material it is sealed under now.
    pub destination_material: MaterialId,
}

/// The answer of GenerateDataKey.
#[derive(Debug)]
pub struct DataKey {
    /// The key itself.
    pub plaintext: SecretVec,
    /// The key, sealed.
    pub ciphertext: Vec<u8>,
    /// The key it is sealed under.
    pub key: KeyArn,
    /// The version of that key's material.
    pub material: MaterialId,
}

/// The answer of GenerateDataKeyWithoutPlaintext.
#[derive(Debug)]
pub struct WrappedDataKey {
    /// The key, sealed.
    pub ciphertext: Vec<u8>,
    /// The key it is sealed under.
    pub key: KeyArn,
    /// The version of that key's material.
    pub material: MaterialId,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys past their deletion date, destroyed.
    pub destroyed: usize,
    /// Keys due by the calendar, rotated.
    pub rotated: usize,
}

/// Keys with KMS semantics. See the crate's documentation.
pub struct Keyring {}

macro_rules! signatures {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[allow(unused_variables, missing_docs, clippy::unused_async)]
        impl Keyring {
            $($(#[$doc])* pub async fn $name(&self $(, $arg: $type)*) -> Result<$answer, KeyringError> {
                Err(KeyringError::ShuttingDown)
            })*

            pub fn open(options: Options) -> Result<Arc<Self>, KeyringError> {
                Err(KeyringError::ShuttingDown)
            }
            /// The permission to do `A` to the key named; a refusal is recorded.
            pub async fn authorize<A: Action>(&self, caller: &Caller, key: &KeyArgument) -> Result<Authorized<A>, KeyringError> {
                Err(KeyringError::ShuttingDown)
            }
            /// The permission to do `A` (CreateKey, ListKeys, ListAliases, GenerateRandom) in the account.
            pub async fn authorize_account<A: Action>(&self, caller: &Caller) -> Result<Authorized<A>, KeyringError> {
                Err(KeyringError::ShuttingDown)
            }
            /// The permission to do `A` (Decrypt, ReEncryptFrom) to the key a blob names.
            pub async fn authorize_blob<A: Action>(&self, caller: &Caller, blob: &[u8], key: Option<&KeyArgument>) -> Result<Authorized<A>, KeyringError> {
                Err(KeyringError::ShuttingDown)
            }
            /// [`Keyring::authorize_blob`] for Decrypt.
            pub async fn authorize_decrypt(&self, caller: &Caller, blob: &[u8], key: Option<&KeyArgument>) -> Result<Authorized<iam::Decrypt>, KeyringError> {
                Err(KeyringError::ShuttingDown)
            }
            /// The permission to delete an alias (asked of the key it points to).
            pub async fn authorize_delete_alias(&self, caller: &Caller, alias: &AliasName) -> Result<Authorized<iam::DeleteAlias>, KeyringError> {
                Err(KeyringError::ShuttingDown)
            }
            /// Answers a DryRun: `DryRun` if the request would have succeeded. The answer is always an error.
            pub async fn dry_run<A: Action>(&self, authorized: Authorized<A>) -> KeyringError {
                KeyringError::ShuttingDown
            }
            /// Calls `listener` synchronously on every change of a key, before the change is answered.
            pub fn on_change(&self, listener: Box<dyn Fn(&KeyEvent) + Send + Sync>) {}
        }
    };
}

signatures! {
    create_key(authorized: Authorized<iam::CreateKey>, request: CreateKey) -> KeyMetadata;
    describe_key(authorized: Authorized<iam::DescribeKey>) -> KeyMetadata;
    list_keys(authorized: Authorized<iam::ListKeys>, page: Page) -> Listed<KeyArn>;
    update_key_description(authorized: Authorized<iam::UpdateKeyDescription>, description: String) -> ();
    enable_key(authorized: Authorized<iam::EnableKey>) -> ();
    disable_key(authorized: Authorized<iam::DisableKey>) -> ();
    schedule_key_deletion(authorized: Authorized<iam::ScheduleKeyDeletion>, window: PendingWindow) -> KeyMetadata;
    cancel_key_deletion(authorized: Authorized<iam::CancelKeyDeletion>) -> KeyArn;
    /// The target is what `authorized` is for.
    create_alias(authorized: Authorized<iam::CreateAlias>, name: AliasName) -> ();
    /// The new target is what `authorized` is for.
    update_alias(authorized: Authorized<iam::UpdateAlias>, name: AliasName) -> ();
    delete_alias(authorized: Authorized<iam::DeleteAlias>, name: AliasName) -> ();
    /// Only those of `key` if given.
    list_aliases(authorized: Authorized<iam::ListAliases>, key: Option<KeyArgument>, page: Page) -> Listed<Alias>;
    /// 1 to 4096 bytes of plaintext.
    encrypt(authorized: Authorized<iam::Encrypt>, plaintext: SecretVec, context: EncryptionContext) -> Encrypted;
    decrypt(authorized: Authorized<iam::Decrypt>, blob: &[u8], context: EncryptionContext) -> Decrypted;
    re_encrypt(source: Authorized<iam::ReEncryptFrom>, blob: &[u8], source_context: EncryptionContext, destination: Authorized<iam::ReEncryptTo>, destination_context: EncryptionContext) -> ReEncrypted;
    generate_data_key(authorized: Authorized<iam::GenerateDataKey>, len: DataKeyLen, context: EncryptionContext) -> DataKey;
    generate_data_key_without_plaintext(authorized: Authorized<iam::GenerateDataKeyWithoutPlaintext>, len: DataKeyLen, context: EncryptionContext) -> WrappedDataKey;
    generate_random(authorized: Authorized<iam::GenerateRandom>, len: DataKeyLen) -> SecretVec;
    /// At most 25 a key.
    rotate_key_on_demand(authorized: Authorized<iam::RotateKeyOnDemand>) -> KeyArn;
    /// Every 90 to 2560 days, 365 if not given.
    enable_key_rotation(authorized: Authorized<iam::EnableKeyRotation>, period_days: Option<i64>) -> ();
    disable_key_rotation(authorized: Authorized<iam::DisableKeyRotation>) -> ();
    get_key_rotation_status(authorized: Authorized<iam::GetKeyRotationStatus>) -> RotationStatus;
    list_key_rotations(authorized: Authorized<iam::ListKeyRotations>, page: Page) -> Listed<Rotation>;
    /// The policy `default`, as JSON text.
    get_key_policy(authorized: Authorized<iam::GetKeyPolicy>) -> String;
    tag_resource(authorized: Authorized<iam::TagResource>, tags: Vec<Tag>) -> ();
    untag_resource(authorized: Authorized<iam::UntagResource>, keys: Vec<String>) -> ();
    list_resource_tags(authorized: Authorized<iam::ListResourceTags>, page: Page) -> Listed<Tag>;
    /// The AWS managed key of a service, made on first use.
    managed_key(service: Service) -> KeyArn;
    /// The AWS owned key of a service (SSE-S3), made on first use. Usable by callers `via` that service.
    owned_key(service: Service) -> KeyArn;
    /// Destroys keys past their deletion date and rotates those that are due. Call it hourly or so.
    sweep() -> Swept;
}
