//! A volume's data key: wrapped by the keyring for this volume alone, and opened in a caller's name.

use crypto::{context::EncryptionContext, secret::SecretVec, volume_key::VolumeDataKey};
use iam::{Authorized, Caller, Decrypt, Standing};
use keyring::{BlobUse, KeyArgument, Keyring, NamedKey, SealedBlob};

use crate::{VolumeError, VolumeId, descriptor::Protected};

/// The name in the encryption context of a volume's data key, as EBS's.
const CONTEXT_NAME: &str = "aws:ebs:id";

/// What a volume's data key is bound to.
pub(crate) fn context(id: VolumeId) -> Result<EncryptionContext, VolumeError> {
    EncryptionContext::from_pairs([(CONTEXT_NAME, id.to_string())])
        .map_err(|_| VolumeError::InvalidParameter("an encryption context".to_owned()))
}

/// Unwraps the data key of a sealed volume, and says what it stands on; `None` for an unencrypted one.
pub(crate) async fn open_data_key(
    keyring: &Keyring,
    caller: Caller<'_>,
    id: VolumeId,
    protected: &Protected,
) -> Result<Option<(VolumeDataKey, Standing<Decrypt, NamedKey>)>, VolumeError> {
    let Some(authorized) = may_open(keyring, caller, id, protected).await? else {
        return Ok(None);
    };
    let standing = authorized.standing(authorized.resource().to_key());
    let opened = keyring.decrypt(authorized).await?;
    Ok(Some((data_key(opened.plaintext, id)?, standing)))
}

/// The permission to unwrap the data key of a sealed volume; `None` for an unencrypted one.
async fn may_open<'a>(
    keyring: &Keyring,
    caller: Caller<'_>,
    id: VolumeId,
    protected: &'a Protected,
) -> Result<Option<Authorized<Decrypt, SealedBlob<'a>>>, VolumeError> {
    let Protected::Sealed {
        key,
        wrapped_data_key,
    } = protected
    else {
        return Ok(None);
    };
    let target = BlobUse {
        blob: wrapped_data_key,
        key: Some(&KeyArgument::from(key)),
        context: context(id)?,
    };
    Ok(Some(keyring.authorize(caller, target).await?))
}

fn data_key(plaintext: SecretVec, id: VolumeId) -> Result<VolumeDataKey, VolumeError> {
    VolumeDataKey::from_secret(plaintext).map_err(|_| VolumeError::Damaged {
        file: id.to_string().into(),
        at: 0,
        why: "its data key is not 64 bytes long",
    })
}
