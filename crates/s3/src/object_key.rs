//! Where an object's key comes from, and how it is had again.
//!
//! Four ways, by the object's [`Protection`]: wrapped under a bucket key of the
//! gateway's own KMS key (SSE-S3), wrapped by the keyring for the object alone
//! or under a bucket key (SSE-KMS), or brought by the client each time (SSE-C).
//!
//! Promises: a new object's key is new, also when an object is replaced; the
//! encryption context given to the keyring is the client's and, always,
//! `aws:s3:arn`; a customer's key is recognised in constant time by a salted
//! verifier, and nothing from which it could be had is kept.

use std::sync::Arc;

use crypto::bucket_key::{unwrap_object_key, wrap_object_key};
use crypto::chunk::ObjectKey;
use crypto::context::EncryptionContext;
use crypto::random::Random;
use crypto::secret::SecretBytes;
use iam::{Arn, Authorized, Caller, Decrypt, GenerateDataKey};
use keyring::{
    BlobUse, DataKeyLen, KeyArgument, KeyResource, KeyUse, Keyring, NamedKey, SealedBlob, Service,
};
use subtle::ConstantTimeEq;

use crate::bucket_default::BucketDefault;
use crate::bucket_key::BucketKeys;
use crate::envelope::{ObjectId, Protection, key_place};
use crate::error::Error;
use crate::sse::{CustomerKey, Wanted};

/// The name under which S3 puts the object's or bucket's ARN into the context.
const CONTEXT_ARN: &str = "aws:s3:arn";

/// Where an object is or will be.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) id: &'a ObjectId,
}

/// A key for a new object and how it is kept.
pub(crate) struct NewKey {
    pub(crate) key: Arc<ObjectKey>,
    pub(crate) protection: Protection,
}

/// A new object key under a bucket key.
struct Wrapped {
    key: Arc<ObjectKey>,
    /// The bucket key as the keyring wrapped it.
    bucket_key: Vec<u8>,
    /// The object key under the bucket key.
    form: Vec<u8>,
}

/// Makes and recovers object keys.
pub(crate) struct ObjectKeys {
    keyring: Arc<Keyring>,
    bucket_keys: BucketKeys,
    random: Arc<dyn Random>,
}

impl ObjectKeys {
    pub(crate) fn new(
        keyring: Arc<Keyring>,
        bucket_keys: BucketKeys,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            keyring,
            bucket_keys,
            random,
        }
    }

    /// Makes a key for an object as the request, or else the bucket, wants it.
    pub(crate) async fn create(
        &self,
        caller: Caller<'_>,
        at: Place<'_>,
        wanted: Wanted,
        default: &BucketDefault,
    ) -> Result<NewKey, Error> {
        match wanted {
            Wanted::Customer(customer) => Ok(self.customer(customer)),
            Wanted::Owned => self.owned(caller, at).await,
            Wanted::Default { bucket_key } => match default {
                BucketDefault::Owned { .. } => self.owned(caller, at).await,
                BucketDefault::Kms {
                    key,
                    bucket_key: default,
                } => {
                    let bucket_key = bucket_key.unwrap_or(*default);
                    let context = EncryptionContext::new();
                    self.kms(caller, at, key.as_deref(), context, bucket_key)
                        .await
                }
            },
            Wanted::Kms {
                key,
                context,
                bucket_key,
            } => {
                let bucket_key = bucket_key.unwrap_or_else(|| default.bucket_key());
                self.kms(caller, at, key.as_deref(), context, bucket_key)
                    .await
            }
        }
    }

    /// Has an object's key again. `customer` is what the request brought;
    /// whether it had to is checked by [`check_customer`], before this.
    pub(crate) async fn open(
        &self,
        caller: Caller<'_>,
        at: Place<'_>,
        protection: &Protection,
        customer: Option<CustomerKey>,
    ) -> Result<Arc<ObjectKey>, Error> {
        match protection {
            Protection::Customer { .. } => {
                let customer = customer.ok_or(Error::Internal("customer key not checked"))?;
                Ok(Arc::new(ObjectKey::from_secret(customer.key)))
            }
            Protection::Kms {
                data_key, context, ..
            } => {
                let context = with_arn(context, &Arn::s3_object(at.bucket, at.key))?;
                let may = self.may_decrypt(caller, data_key, context).await?;
                let opened = self.keyring.decrypt(may).await?;
                let key = opened
                    .plaintext
                    .to_secret_bytes()
                    .map_err(|_| Error::Integrity)?;
                Ok(Arc::new(ObjectKey::from_secret(key)))
            }
            Protection::Owned {
                bucket_key,
                wrapped,
            } => {
                self.unwrap(caller, at, bucket_key, wrapped, &EncryptionContext::new())
                    .await
            }
            Protection::KmsBucketKey {
                bucket_key,
                wrapped,
                context,
                ..
            } => self.unwrap(caller, at, bucket_key, wrapped, context).await,
        }
    }

    fn customer(&self, customer: CustomerKey) -> NewKey {
        let mut salt = [0; 32];
        self.random.fill(&mut salt);
        let key = ObjectKey::from_secret(customer.key);
        let verifier = key.verifier(&salt);
        NewKey {
            key: Arc::new(key),
            protection: Protection::Customer { salt, verifier },
        }
    }

    async fn owned(&self, caller: Caller<'_>, at: Place<'_>) -> Result<NewKey, Error> {
        let kms_key = KeyArgument::Arn(self.keyring.owned_key(Service::S3).await?);
        let context = with_arn(&EncryptionContext::new(), &Arn::s3_bucket(at.bucket))?;
        let may = self.may_generate(caller, &kms_key, context).await?;
        let wrapped = self.wrap(at, may).await?;
        Ok(NewKey {
            key: wrapped.key,
            protection: Protection::Owned {
                bucket_key: wrapped.bucket_key,
                wrapped: wrapped.form,
            },
        })
    }

    async fn kms(
        &self,
        caller: Caller<'_>,
        at: Place<'_>,
        key: Option<&str>,
        context: EncryptionContext,
        bucket_key: bool,
    ) -> Result<NewKey, Error> {
        let place = match bucket_key {
            true => Arn::s3_bucket(at.bucket),
            false => Arn::s3_object(at.bucket, at.key),
        };
        let full = with_arn(&context, &place)?;
        let may = self
            .may_generate(caller, &self.kms_argument(key).await?, full)
            .await?;
        if bucket_key {
            let key_arn = may.resource().key().to_string();
            let wrapped = self.wrap(at, may).await?;
            return Ok(NewKey {
                key: wrapped.key,
                protection: Protection::KmsBucketKey {
                    key_arn,
                    bucket_key: wrapped.bucket_key,
                    wrapped: wrapped.form,
                    context,
                },
            });
        }
        let made = self
            .keyring
            .generate_data_key(may, DataKeyLen::AES_256)
            .await?;
        let key = made
            .plaintext
            .to_secret_bytes()
            .map_err(|_| Error::Internal("the keyring made a data key of another length"))?;
        Ok(NewKey {
            key: Arc::new(ObjectKey::from_secret(key)),
            protection: Protection::Kms {
                key_arn: made.key.to_string(),
                data_key: made.ciphertext,
                context,
            },
        })
    }

    /// The KMS key a request or a bucket names; none means `alias/aws/s3`.
    async fn kms_argument(&self, key: Option<&str>) -> Result<KeyArgument, Error> {
        match key {
            Some(key) => Ok(key.parse()?),
            None => Ok(KeyArgument::Arn(
                self.keyring.managed_key(Service::S3).await?,
            )),
        }
    }

    /// A new object key and its form under the bucket key.
    async fn wrap(
        &self,
        at: Place<'_>,
        may: Authorized<GenerateDataKey, NamedKey>,
    ) -> Result<Wrapped, Error> {
        let held = self.bucket_keys.for_sealing(at.bucket, may).await?;
        let key = ObjectKey::generate(&*self.random);
        let aad = key_place(at.bucket, at.key, at.id);
        let form = wrap_object_key(&held.key, &key, &aad, &*self.random);
        Ok(Wrapped {
            key: Arc::new(key),
            bucket_key: held.blob.clone(),
            form,
        })
    }

    async fn unwrap(
        &self,
        caller: Caller<'_>,
        at: Place<'_>,
        bucket_key: &[u8],
        wrapped: &[u8],
        context: &EncryptionContext,
    ) -> Result<Arc<ObjectKey>, Error> {
        let context = with_arn(context, &Arn::s3_bucket(at.bucket))?;
        let may = self.may_decrypt(caller, bucket_key, context).await?;
        let held = self.bucket_keys.for_opening(at.bucket, may).await?;
        let aad = key_place(at.bucket, at.key, at.id);
        let key = unwrap_object_key(&held.key, wrapped, &aad).map_err(|_| Error::Integrity)?;
        Ok(Arc::new(key))
    }

    /// The key behind an id, alias or ARN, if the caller may make data keys with
    /// it under this context.
    async fn may_generate(
        &self,
        caller: Caller<'_>,
        key: &KeyArgument,
        context: EncryptionContext,
    ) -> Result<Authorized<GenerateDataKey, NamedKey>, Error> {
        debug_assert_eq!(caller.via(), iam::Via::S3);
        let target = KeyUse { key, context };
        Ok(self.keyring.authorize(caller, target).await?)
    }

    async fn may_decrypt<'a>(
        &self,
        caller: Caller<'_>,
        blob: &'a [u8],
        context: EncryptionContext,
    ) -> Result<Authorized<Decrypt, SealedBlob<'a>>, Error> {
        debug_assert_eq!(caller.via(), iam::Via::S3);
        let target = BlobUse {
            blob,
            key: None,
            context,
        };
        Ok(self.keyring.authorize(caller, target).await?)
    }
}

/// The client's context and the ARN. A client may give the ARN itself, but no
/// other.
fn with_arn(context: &EncryptionContext, arn: &Arn) -> Result<EncryptionContext, Error> {
    let mut full = context.clone();
    match full.get(CONTEXT_ARN) {
        Some(given) if given == arn.as_str() => {}
        Some(_) => {
            return Err(Error::invalid_argument(
                "The encryption context may not give aws:s3:arn another value than S3 does.",
            ));
        }
        None => full
            .insert(CONTEXT_ARN, arn.as_str())
            .map_err(|_| Error::invalid_argument("The encryption context is too long."))?,
    }
    Ok(full)
}

/// Which request is asked whether its customer key fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// GET, HEAD, attributes or the source of a copy.
    Read,
    /// A part, or its copy.
    Part,
}

/// Whether the request brought the customer key the object needs, and only
/// then.
pub(crate) fn check_customer(
    protection: &Protection,
    customer: Option<&CustomerKey>,
    asked: Asked,
) -> Result<(), Error> {
    match (protection, customer, asked) {
        (Protection::Customer { salt, verifier }, Some(customer), _) => {
            let key = SecretBytes::init_with(|bytes| bytes.copy_from_slice(customer.key.expose()));
            let computed = ObjectKey::from_secret(key).verifier(salt);
            if bool::from(computed.ct_eq(verifier)) {
                return Ok(());
            }
            Err(match asked {
                Asked::Read => Error::access_denied("Access Denied"),
                Asked::Part => Error::invalid_request(
                    "The provided encryption parameters did not match the ones used originally.",
                ),
            })
        }
        (Protection::Customer { .. }, None, Asked::Read) => Err(Error::invalid_request(
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.",
        )),
        (Protection::Customer { .. }, None, Asked::Part) => Err(Error::invalid_request(
            "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters.",
        )),
        (_, Some(_), Asked::Read) => Err(Error::invalid_request(
            "The encryption parameters are not applicable to this object.",
        )),
        (_, Some(_), Asked::Part) => Err(Error::invalid_request(
            "The multipart upload initiate did not request encryption. Please resend the request without sending encryption parameters.",
        )),
        (_, None, _) => Ok(()),
    }
}
