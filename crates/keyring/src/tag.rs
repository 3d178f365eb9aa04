//! Tags of keys.

use std::collections::HashSet;

use iam::Authorized;

use crate::{
    change::{Edit, Moment, Plan},
    error::KeyringError,
    keyring::{Inner, Keyring},
    metadata::Tag,
    resource::NamedKey,
    trail::Trail,
};

/// Tags of a key, at most.
const TAGS_MAX: usize = 50;
/// Bounds of a tag's name and value, in characters.
const TAG_KEY_LEN_MAX: usize = 128;
const TAG_VALUE_LEN_MAX: usize = 256;

impl Keyring {
    /// Adds tags; one whose name is there takes the new value.
    pub async fn tag_resource(
        &self,
        authorized: Authorized<iam::TagResource, NamedKey>,
        tags: Vec<Tag>,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, _: &Moment, _: &mut Trail| {
            let entry = inner.admit(&authorized)?;
            let kept: Vec<_> = entry
                .record
                .tags
                .iter()
                .filter(|old| tags.iter().all(|new| new.key != old.key))
                .cloned()
                .collect();
            check_tags(&kept, &tags)?;
            let next = entry.changed(|record| {
                record.tags = kept;
                record.tags.extend(tags.iter().cloned());
            });
            Ok(Plan::edit((), vec![Edit::Key(next)]))
        };
        self.inner.change(trail, plan).await
    }

    /// Removes tags by name; names that are not there are passed over.
    pub async fn untag_resource(
        &self,
        authorized: Authorized<iam::UntagResource, NamedKey>,
        keys: Vec<String>,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, _: &Moment, _: &mut Trail| {
            let next = inner
                .admit(&authorized)?
                .changed(|record| record.tags.retain(|tag| !keys.contains(&tag.key)));
            Ok(Plan::edit((), vec![Edit::Key(next)]))
        };
        self.inner.change(trail, plan).await
    }
}

/// Whether `new` may stand beside `kept`.
pub(crate) fn check_tags(kept: &[Tag], new: &[Tag]) -> Result<(), KeyringError> {
    let wrong = |message: String| Err(KeyringError::Tag(message));
    if kept.len() + new.len() > TAGS_MAX {
        return wrong(format!("A key has at most {TAGS_MAX} tags."));
    }
    let mut names = HashSet::new();
    for Tag { key, value } in new {
        if key.is_empty() || key.chars().count() > TAG_KEY_LEN_MAX {
            return wrong(format!("A tag key has 1 to {TAG_KEY_LEN_MAX} characters."));
        }
        if value.chars().count() > TAG_VALUE_LEN_MAX {
            return wrong(format!(
                "A tag value has at most {TAG_VALUE_LEN_MAX} characters."
            ));
        }
        if key
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
        {
            return wrong("Tag keys that begin with \"aws:\" are reserved.".to_owned());
        }
        if !names.insert(key) {
            return wrong("A tag key is given twice.".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn tags_out_of_bounds_are_refused() {
        let many: Vec<_> = (0..50).map(|n| tag(&n.to_string(), "")).collect();
        assert!(check_tags(&[], &many).is_ok());
        for bad in [
            (&many[..], vec![tag("x", "")]),
            (&[], vec![tag("", "v")]),
            (&[], vec![tag(&"k".repeat(129), "v")]),
            (&[], vec![tag("k", &"v".repeat(257))]),
            (&[], vec![tag("AWS:k", "v")]),
            (&[], vec![tag("k", "1"), tag("k", "2")]),
        ] {
            let error = check_tags(bad.0, &bad.1).unwrap_err();
            assert_eq!(error.code(), "TagException");
        }
    }
}
