//! What a request for a volume must be, and how it is told from another that has the same client token.

use crypto::hash::Sha256;

use crate::{CreateVolume, Encryption, VolumeError};

/// Longest client token, as EC2's.
const CLIENT_TOKEN_LEN_MAX: usize = 64;
/// Longest name of an availability zone.
const ZONE_LEN_MAX: usize = 64;

/// A client token within its bounds.
pub(crate) fn check_token(token: &str) -> Result<String, VolumeError> {
    if token.len() > CLIENT_TOKEN_LEN_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(VolumeError::InvalidParameter(format!(
            "A client token has at most {CLIENT_TOKEN_LEN_MAX} printable ASCII characters."
        )));
    }
    Ok(token.to_owned())
}

/// Whether that can be the name of an availability zone.
pub(crate) fn check_zone(zone: &str) -> Result<(), VolumeError> {
    let well_formed = (1..=ZONE_LEN_MAX).contains(&zone.len())
        && zone
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !well_formed {
        return Err(VolumeError::InvalidParameter(
            "The availability zone is not valid.".to_owned(),
        ));
    }
    Ok(())
}

/// SHA-256 of a request's parameters, so that a token used again can be told from one used for something else.
pub(crate) fn fingerprint(request: &CreateVolume) -> String {
    let encryption = match &request.encryption {
        Encryption::Default { key } => format!("default {key:?}"),
        Encryption::Sealed { key } => format!("sealed {key:?}"),
        Encryption::Unencrypted => "unencrypted".to_owned(),
    };
    let mut tags = request.tags.clone();
    tags.sort_by(|a, b| a.key.cmp(&b.key));
    let text = format!(
        "{} {encryption} {} {:?} {tags:?}",
        request.size.bytes(),
        request.volume_type,
        request.availability_zone
    );
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
