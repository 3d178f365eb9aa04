//! Encrypt, Decrypt, ReEncrypt, GenerateDataKey with and without plaintext, GenerateRandom.
use bytes::Bytes;
use keyring::{Account, BlobUse, DataKeyLen, KeyUse, KeyringError};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::model::Members;

use super::{
    fault::Fault,
    request::Request,
    validate::{algorithm, grant_tokens, key, needed, optional_key},
    wire::{Base64, Blob, Context, FromValue, Member, Unlike, answer, context, secret_answer},
};

const ALGORITHM: &str = "SYMMETRIC_DEFAULT";

/// A Nitro enclave's attestation: its answer would be sealed to the enclave, which we do not do.
fn no_recipient(recipient: Option<&IgnoredAny>) -> Result<(), Fault> {
    match recipient {
        None => Ok(()),
        Some(_) => Err(Fault::Unsupported("Recipient is not supported.")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypt {
    key_id: String,
    plaintext: Blob,
    encryption_context: Option<Context>,
    grant_tokens: Option<Vec<String>>,
    encryption_algorithm: Option<String>,
    dry_run: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt {
    ciphertext_blob: Option<Blob>,
    key_id: Option<String>,
    encryption_context: Option<Context>,
    grant_tokens: Option<Vec<String>>,
    encryption_algorithm: Option<String>,
    recipient: Option<IgnoredAny>,
    dry_run: Option<bool>,
}

impl Decrypt {
    /// As it would be parsed from the body that the members were read from.
    fn of(mut members: Members<'_>) -> Result<Self, Unlike> {
        let members = &mut members;
        Ok(Self {
            ciphertext_blob: Blob::take(members, "CiphertextBlob")?,
            key_id: String::take(members, "KeyId")?,
            encryption_context: Context::take(members, "EncryptionContext")?,
            grant_tokens: Vec::take(members, "GrantTokens")?,
            encryption_algorithm: String::take(members, "EncryptionAlgorithm")?,
            recipient: IgnoredAny::take(members, "Recipient")?,
            dry_run: bool::take(members, "DryRun")?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReEncrypt {
    ciphertext_blob: Option<Blob>,
    source_key_id: Option<String>,
    source_encryption_context: Option<Context>,
    source_encryption_algorithm: Option<String>,
    destination_key_id: String,
    destination_encryption_context: Option<Context>,
    destination_encryption_algorithm: Option<String>,
    grant_tokens: Option<Vec<String>>,
    dry_run: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateDataKey {
    key_id: String,
    encryption_context: Option<Context>,
    number_of_bytes: Option<i64>,
    key_spec: Option<String>,
    grant_tokens: Option<Vec<String>>,
    recipient: Option<IgnoredAny>,
    dry_run: Option<bool>,
}

impl GenerateDataKey {
    fn len(&self) -> Result<DataKeyLen, Fault> {
        match (self.number_of_bytes, self.key_spec.as_deref()) {
            (Some(bytes), None) => data_key_len(bytes),
            (None, Some("AES_128")) => Ok(DataKeyLen::AES_128),
            (None, Some(_)) => Ok(DataKeyLen::AES_256),
            _ => Err(Fault::Validation(
                "Please specify either number of bytes or key spec.".to_owned(),
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateRandom {
    number_of_bytes: Option<i64>,
    custom_key_store_id: Option<IgnoredAny>,
    recipient: Option<IgnoredAny>,
}

/// The keyring knows the bounds, which are the model's.
fn data_key_len(bytes: i64) -> Result<DataKeyLen, Fault> {
    Ok(DataKeyLen::new(u64::try_from(bytes).unwrap_or(0))?)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Sealed<'a> {
    ciphertext_blob: Base64<'a>,
    key_id: &'a str,
    encryption_algorithm: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resealed<'a> {
    ciphertext_blob: Base64<'a>,
    source_key_id: &'a str,
    key_id: &'a str,
    source_encryption_algorithm: &'static str,
    destination_encryption_algorithm: &'static str,
    source_key_material_id: String,
    destination_key_material_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WrappedDataKey<'a> {
    ciphertext_blob: Base64<'a>,
    key_id: &'a str,
    key_material_id: String,
}

impl Request<'_> {
    pub(super) async fn encrypt(self) -> Result<Bytes, Fault> {
        let request: Encrypt = self.parse()?;
        let key = key(&request.key_id)?;
        let plaintext = request.plaintext.0;
        algorithm(request.encryption_algorithm.as_deref())?;
        grant_tokens(request.grant_tokens.as_deref())?;
        let context = context(request.encryption_context, "encryptionContext")?;

        let target = KeyUse { key: &key, context };
        let authorized = self.keyring.authorize(self.caller, target).await?;
        if request.dry_run == Some(true) {
            return Err(self
                .keyring
                .dry_run::<iam::Encrypt, _>(authorized)
                .await
                .into());
        }
        let sealed = self.keyring.encrypt(authorized, plaintext).await?;
        answer(&Sealed {
            ciphertext_blob: Base64(&sealed.ciphertext),
            key_id: sealed.key.as_str(),
            encryption_algorithm: ALGORITHM,
        })
    }

    pub(super) async fn decrypt(self) -> Result<Bytes, Fault> {
        // The operation that is asked for most is not parsed twice.
        let request = match Decrypt::of(self.operation.read(self.body)?) {
            Ok(request) => request,
            Err(Unlike) => self.parse()?,
        };
        let blob = needed(request.ciphertext_blob, "ciphertextBlob")?.0;
        let key = optional_key(request.key_id.as_deref())?;
        algorithm(request.encryption_algorithm.as_deref())?;
        grant_tokens(request.grant_tokens.as_deref())?;
        no_recipient(request.recipient.as_ref())?;
        let context = context(request.encryption_context, "encryptionContext")?;

        let authorized = self
            .keyring
            .authorize(
                self.caller,
                BlobUse {
                    blob: blob.expose(),
                    key: key.as_ref(),
                    context,
                },
            )
            .await?;
        if request.dry_run == Some(true) {
            return Err(self.keyring.dry_run(authorized).await.into());
        }
        let opened = self.keyring.decrypt(authorized).await?;
        secret_answer([
            ("KeyId", Member::Text(opened.key.as_str())),
            ("Plaintext", Member::Blob(opened.plaintext.expose())),
            ("EncryptionAlgorithm", Member::Text(ALGORITHM)),
            ("KeyMaterialId", Member::Text(&opened.material.to_string())),
        ])
    }

    pub(super) async fn re_encrypt(self) -> Result<Bytes, Fault> {
        let request: ReEncrypt = self.parse()?;
        let blob = needed(request.ciphertext_blob, "ciphertextBlob")?.0;
        let source = optional_key(request.source_key_id.as_deref())?;
        let destination = key(&request.destination_key_id)?;
        let (from, to) = (
            request.source_encryption_algorithm.as_deref(),
            request.destination_encryption_algorithm.as_deref(),
        );
        algorithm(from)?;
        algorithm(to)?;
        grant_tokens(request.grant_tokens.as_deref())?;
        let source_context = context(request.source_encryption_context, "sourceEncryptionContext")?;
        let destination_context = context(
            request.destination_encryption_context,
            "destinationEncryptionContext",
        )?;

        let from = self
            .keyring
            .authorize(
                self.caller,
                BlobUse {
                    blob: blob.expose(),
                    key: source.as_ref(),
                    context: source_context,
                },
            )
            .await?;
        let to = self
            .keyring
            .authorize(
                self.caller,
                KeyUse {
                    key: &destination,
                    context: destination_context,
                },
            )
            .await?;
        if request.dry_run == Some(true) {
            return Err(match self.keyring.dry_run(from).await {
                KeyringError::DryRun => self.keyring.dry_run(to).await.into(),
                refusal => refusal.into(),
            });
        }
        let resealed = self.keyring.re_encrypt(from, to).await?;
        answer(&Resealed {
            ciphertext_blob: Base64(&resealed.ciphertext),
            source_key_id: resealed.source.as_str(),
            key_id: resealed.destination.as_str(),
            source_encryption_algorithm: ALGORITHM,
            destination_encryption_algorithm: ALGORITHM,
            source_key_material_id: resealed.source_material.to_string(),
            destination_key_material_id: resealed.destination_material.to_string(),
        })
    }

    pub(super) async fn generate_data_key(self) -> Result<Bytes, Fault> {
        let request: GenerateDataKey = self.parse()?;
        let key = key(&request.key_id)?;
        let len = request.len()?;
        grant_tokens(request.grant_tokens.as_deref())?;
        no_recipient(request.recipient.as_ref())?;
        let context = context(request.encryption_context, "encryptionContext")?;

        let target = KeyUse { key: &key, context };
        let authorized = self.keyring.authorize(self.caller, target).await?;
        if request.dry_run == Some(true) {
            return Err(self
                .keyring
                .dry_run::<iam::GenerateDataKey, _>(authorized)
                .await
                .into());
        }
        let data_key = self.keyring.generate_data_key(authorized, len).await?;
        secret_answer([
            ("CiphertextBlob", Member::Blob(&data_key.ciphertext)),
            ("Plaintext", Member::Blob(data_key.plaintext.expose())),
            ("KeyId", Member::Text(data_key.key.as_str())),
            (
                "KeyMaterialId",
                Member::Text(&data_key.material.to_string()),
            ),
        ])
    }

    pub(super) async fn generate_data_key_without_plaintext(self) -> Result<Bytes, Fault> {
        let request: GenerateDataKey = self.parse()?;
        let key = key(&request.key_id)?;
        let len = request.len()?;
        grant_tokens(request.grant_tokens.as_deref())?;
        let context = context(request.encryption_context, "encryptionContext")?;

        let target = KeyUse { key: &key, context };
        let authorized = self.keyring.authorize(self.caller, target).await?;
        if request.dry_run == Some(true) {
            let refusal = self
                .keyring
                .dry_run::<iam::GenerateDataKeyWithoutPlaintext, _>(authorized)
                .await;
            return Err(refusal.into());
        }
        let data_key = self
            .keyring
            .generate_data_key_without_plaintext(authorized, len)
            .await?;
        answer(&WrappedDataKey {
            ciphertext_blob: Base64(&data_key.ciphertext),
            key_id: data_key.key.as_str(),
            key_material_id: data_key.material.to_string(),
        })
    }

    pub(super) async fn generate_random(self) -> Result<Bytes, Fault> {
        let request: GenerateRandom = self.parse()?;
        let len = match request.number_of_bytes {
            Some(bytes) => data_key_len(bytes)?,
            None => return Err(Fault::Validation("NumberOfBytes is required.".to_owned())),
        };
        no_recipient(request.recipient.as_ref())?;
        if request.custom_key_store_id.is_some() {
            return Err(Fault::Unsupported("There are no custom key stores."));
        }
        let authorized = self.keyring.authorize(self.caller, Account).await?;
        let random = self.keyring.generate_random(authorized, len).await?;
        secret_answer([("Plaintext", Member::Blob(random.expose()))])
    }
}

#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    let _ = serde_json::from_slice::<Encrypt>(data);
    let _ = serde_json::from_slice::<Decrypt>(data);
    let _ = serde_json::from_slice::<ReEncrypt>(data);
    if let Ok(request) = serde_json::from_slice::<GenerateDataKey>(data) {
        let _ = request.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::model;

    /// What a Decrypt says, in a form that can be compared.
    fn said(request: Decrypt) -> impl PartialEq + std::fmt::Debug {
        (
            request.ciphertext_blob.map(|blob| blob.0.expose().to_vec()),
            request.key_id,
            request.encryption_context.map(|context| context.0),
            request.grant_tokens,
            request.encryption_algorithm,
            request.recipient.is_some(),
            request.dry_run,
        )
    }

    #[test]
    fn a_decrypt_is_the_same_taken_from_what_was_checked_as_parsed_anew() {
        let operation = model::SERVICE.operation("Decrypt").unwrap();
        let long = format!(r#"{{"EncryptionContext":{{"n":"{}"}}}}"#, "v".repeat(9000));
        for body in [
            "{}",
            r#"{"CiphertextBlob":"aGk/","KeyId":"k"}"#,
            r#"{"CiphertextBlob":"aGk\/","EncryptionContext":{"a":"\u0031","b":""}}"#,
            r#"{"CiphertextBlob":null,"EncryptionContext":{},"GrantTokens":["t","u"]}"#,
            r#"{"EncryptionAlgorithm":"SYMMETRIC_DEFAULT","DryRun":true,"Unknown":[1]}"#,
            r#"{"Recipient":{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256"},"DryRun":false}"#,
            &long,
        ] {
            let members = operation.read(body.as_bytes()).unwrap();
            let taken = Decrypt::of(members).ok().unwrap();
            let parsed = serde_json::from_str(body).unwrap();
            assert_eq!(said(taken), said(parsed), "{body}");
        }
        // Bits that belong to nothing: the check does not decode.
        let members = operation.read(br#"{"CiphertextBlob":"aGl="}"#).unwrap();
        assert!(Decrypt::of(members).is_err());
    }
}
