//! The life of a key: made, described, enabled, disabled, scheduled for deletion, destroyed; and
//! the keys that services have of their own.

use std::{sync::Arc, time::SystemTime};

use iam::{Authorized, Via};

use crate::{
    change::{Edit, Moment, Plan},
    error::KeyringError,
    event::KeyChange,
    key::{AliasName, KeyArn, KeyId},
    key_state::KeyState,
    keyring::{Inner, Keyring},
    material,
    metadata::{CreateKey, KeyMetadata, PendingWindow, RotationKind, Service, Tag, Tier},
    resource::{AllKeys, NamedKey},
    rotation::{AUTOMATIC_PERIOD_DAYS, rotate},
    snapshot::{AliasEntry, KeyEntry},
    spec::{KeyOrigin, KeySpec, KeyUsage},
    tag::check_tags,
    trail::Trail,
    vault::{AliasRecord, KeyRecord, MaterialRecord, RotationRecord},
};

/// Keys of an account (KMS quota). All of them are in memory but for their material.
const KEYS_MAX: usize = 100_000;
/// Bound of a description, in characters (API, `DescriptionType`).
const DESCRIPTION_LEN_MAX: usize = 8192;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys past their deletion date, destroyed.
    pub destroyed: usize,
    /// Keys due by the calendar, rotated.
    pub rotated: usize,
    /// Keys that one of both was due for and failed; the log says which and why. They are tried again by the next sweep.
    pub failed: usize,
}

impl Swept {
    fn fail(&mut self, key: KeyId, error: &KeyringError, what: &str) {
        tracing::error!(%key, %error, "{what}");
        self.failed += 1;
    }
}

impl Keyring {
    /// Makes a customer managed key, enabled.
    pub async fn create_key(
        &self,
        authorized: Authorized<iam::CreateKey, AllKeys>,
        request: CreateKey,
    ) -> Result<KeyMetadata, KeyringError> {
        let plan = move |inner: &Inner, moment: &Moment, trail: &mut Trail| {
            check_description(&request.description)?;
            check_tags(&[], &request.tags)?;
            if moment.snapshot.keys.len() >= KEYS_MAX {
                return Err(KeyringError::LimitExceeded(format!(
                    "The account has {KEYS_MAX} keys, the most it can have."
                )));
            }
            let (entry, edits) = new_key(
                inner,
                moment,
                Tier::Customer,
                request.description.clone(),
                request.tags.clone(),
            );
            trail.key = Some(entry.arn.clone());
            Ok(Plan::edit(entry.metadata(), edits))
        };
        self.inner
            .change(self.inner.account_trail(&authorized), plan)
            .await
    }

    /// What is known of a key.
    pub async fn describe_key(
        &self,
        authorized: Authorized<iam::DescribeKey, NamedKey>,
    ) -> Result<KeyMetadata, KeyringError> {
        let result = self.inner.admit(&authorized).map(|entry| entry.metadata());
        self.inner
            .finish(self.inner.trail(&authorized), result)
            .await
    }

    /// Changes a key's description.
    pub async fn update_key_description(
        &self,
        authorized: Authorized<iam::UpdateKeyDescription, NamedKey>,
        description: String,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, _: &Moment, _: &mut Trail| {
            check_description(&description)?;
            let next = inner
                .admit(&authorized)?
                .changed(|record| record.description = description.clone());
            Ok(Plan::edit((), vec![Edit::Key(next)]))
        };
        self.inner.change(trail, plan).await
    }

    /// Lets a key be used again.
    pub async fn enable_key(
        &self,
        authorized: Authorized<iam::EnableKey, NamedKey>,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, _: &Moment, _: &mut Trail| {
            let entry = inner.admit(&authorized)?;
            Ok(switch(&entry, KeyState::Enabled, KeyChange::Enabled))
        };
        self.inner.change(trail, plan).await
    }

    /// Stops a key from being used. When this returns, no operation that begins opens or seals
    /// anything under it, and every listener was told.
    pub async fn disable_key(
        &self,
        authorized: Authorized<iam::DisableKey, NamedKey>,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, _: &Moment, _: &mut Trail| {
            let entry = inner.admit(&authorized)?;
            Ok(switch(&entry, KeyState::Disabled, KeyChange::Disabled))
        };
        self.inner.change(trail, plan).await
    }

    /// Stops a key from being used, and destroys it after `window`.
    pub async fn schedule_key_deletion(
        &self,
        authorized: Authorized<iam::ScheduleKeyDeletion, NamedKey>,
        window: PendingWindow,
    ) -> Result<KeyMetadata, KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, moment: &Moment, _: &mut Trail| {
            let entry = inner.admit(&authorized)?;
            let next = entry.changed(|record| {
                record.state = KeyState::PendingDeletion;
                record.deletion = Some((moment.now + window.duration()).into());
            });
            let metadata = next.metadata();
            Ok(Plan::edit(metadata, vec![Edit::Key(next)])
                .and_tell(&entry, KeyChange::DeletionScheduled))
        };
        self.inner.change(trail, plan).await
    }

    /// Takes a scheduled deletion back; the key comes back disabled.
    pub async fn cancel_key_deletion(
        &self,
        authorized: Authorized<iam::CancelKeyDeletion, NamedKey>,
    ) -> Result<KeyArn, KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, _: &Moment, _: &mut Trail| {
            let entry = inner.admit(&authorized)?;
            let next = entry.changed(|record| {
                record.state = KeyState::Disabled;
                record.deletion = None;
            });
            Ok(Plan::edit(entry.arn.clone(), vec![Edit::Key(next)])
                .and_tell(&entry, KeyChange::DeletionCancelled))
        };
        self.inner.change(trail, plan).await
    }

    /// The AWS managed key of a service, made on first use: visible, and usable through that
    /// service alone.
    pub async fn managed_key(&self, service: Service) -> Result<KeyArn, KeyringError> {
        if let Some(entry) = self.inner.snapshot.load().managed(service) {
            return Ok(entry.arn.clone());
        }
        self.inner
            .service_key(service, Tier::Managed(service))
            .await
    }

    /// The AWS owned key of a service (SSE-S3), made on first use: in no list, and usable through
    /// that service alone ([`iam::Caller::via`]).
    pub async fn owned_key(&self, service: Service) -> Result<KeyArn, KeyringError> {
        let known = &self.inner.owned[service as usize];
        if let Some(arn) = known.get() {
            return Ok(arn.clone());
        }
        let found = self
            .inner
            .snapshot
            .load()
            .owned(service)
            .map(|entry| entry.arn.clone());
        let arn = match found {
            Some(arn) => arn,
            None => {
                self.inner
                    .service_key(service, Tier::Owned(service))
                    .await?
            }
        };
        Ok(known.get_or_init(|| arn).clone())
    }

    /// Makes the managed key if `name` is the alias of one and its service asks.
    pub(crate) async fn make_if_managed(
        &self,
        via: Via,
        name: &AliasName,
    ) -> Result<(), KeyringError> {
        if !name.is_reserved() {
            return Ok(());
        }
        for service in Service::ALL {
            if via == service.via() && *name == service.alias() {
                self.managed_key(service).await?;
            }
        }
        Ok(())
    }

    /// Destroys keys whose deletion date has come, if the clock has gone on evenly for an hour, and rotates those that are
    /// due. Call it hourly or so: until then a key past its date is refused as one that does not exist, but not erased. A
    /// key that fails holds up no other.
    pub async fn sweep(&self) -> Swept {
        let inner = &self.inner;
        let now = inner.now();
        let mut swept = inner.destroy_expired().await;
        let keys: Vec<KeyId> = inner.snapshot.load().keys.keys().copied().collect();
        for id in keys {
            let looked_at = inner.snapshot.load().keys.get(&id).cloned();
            let Some(entry) = looked_at else { continue };
            if is_due(&entry, now) {
                let done = inner
                    .change(
                        internal(inner, "RotateKey", &entry),
                        move |inner, moment, trail| {
                            let Some(entry) = moment.snapshot.key(id, moment.now) else {
                                return Ok(Plan::nothing(false));
                            };
                            if !is_due(entry, moment.now) {
                                return Ok(Plan::nothing(false));
                            }
                            let plan = rotate(inner, moment, entry, RotationKind::Automatic)?;
                            trail.material = Some(plan.answer);
                            Ok(Plan {
                                edits: plan.edits,
                                events: plan.events,
                                answer: true,
                            })
                        },
                    )
                    .await;
                match done {
                    Ok(done) => swept.rotated += usize::from(done),
                    Err(error) => swept.fail(id, &error, "a key could not be rotated"),
                }
            }
        }
        swept
    }
}

impl Inner {
    /// Destroys keys whose deletion date has come.
    pub(crate) async fn destroy_expired(self: &Arc<Self>) -> Swept {
        let mut swept = Swept::default();
        // First: a jump is noticed also if there is nothing to destroy.
        if !self.wall.is_settled() {
            return swept;
        }
        let now = self.now();
        let snapshot = self.snapshot.load_full();
        for entry in snapshot.keys.values().filter(|key| key.is_expired(now)) {
            let id = entry.id();
            let gone = self.change(internal(self, "DeleteKey", entry), move |_, moment, _| {
                Ok(destroy(moment, id))
            });
            match gone.await {
                Ok(gone) => {
                    if gone {
                        tracing::warn!(
                            key = entry.arn.as_str(),
                            "a key was destroyed: its deletion date has passed"
                        );
                    }
                    swept.destroyed += usize::from(gone);
                }
                Err(error) => swept.fail(id, &error, "a key could not be destroyed"),
            }
        }
        swept
    }

    /// Says in the log which keys are past their deletion date and wait to be erased.
    pub(crate) fn say_what_is_expired(&self) {
        let now = self.now();
        let snapshot = self.snapshot.load();
        for entry in snapshot.keys.values().filter(|key| key.is_expired(now)) {
            tracing::warn!(
                key = entry.arn.as_str(),
                "a key is past its deletion date: it will be destroyed when the clock has gone on evenly for an hour"
            );
        }
    }

    async fn service_key(
        self: &Arc<Self>,
        service: Service,
        tier: Tier,
    ) -> Result<KeyArn, KeyringError> {
        let trail = self.service_trail("CreateKey", service.principal(), service.via());
        self.change(trail, move |inner, moment, trail| {
            let existing = match tier {
                Tier::Owned(_) => moment.snapshot.owned(service),
                Tier::Managed(_) | Tier::Customer => moment.snapshot.managed(service),
            };
            if let Some(entry) = existing {
                // Made by another request while this one waited for its turn.
                trail.key = Some(entry.arn.clone());
                return Ok(Plan::nothing(entry.arn.clone()));
            }
            let description = service.description().to_owned();
            let (entry, mut edits) = new_key(inner, moment, tier, description, Vec::new());
            trail.key = Some(entry.arn.clone());
            if matches!(tier, Tier::Managed(_)) {
                trail.alias = Some(service.alias());
                edits.push(Edit::Alias(AliasEntry {
                    name: service.alias(),
                    target: entry.id(),
                    record: AliasRecord {
                        target: entry.id().to_string(),
                        created: moment.now.into(),
                        updated: moment.now.into(),
                    },
                    version: 1,
                }));
            }
            Ok(Plan::edit(entry.arn, edits))
        })
        .await
    }
}

fn internal(inner: &Inner, operation: &'static str, entry: &KeyEntry) -> Trail {
    let mut trail = inner.service_trail(operation, "kms.amazonaws.com", Via::Api);
    trail.key = Some(entry.arn.clone());
    trail
}

fn is_due(entry: &KeyEntry, now: SystemTime) -> bool {
    entry.record.state == KeyState::Enabled
        && entry
            .record
            .rotation
            .is_some_and(|rotation| SystemTime::from(rotation.next) <= now)
}

/// Whether there was something to destroy, and the plan to.
fn destroy(moment: &Moment, id: KeyId) -> Plan<bool> {
    let Some(entry) = moment
        .snapshot
        .keys
        .get(&id)
        .filter(|entry| entry.is_expired(moment.now))
    else {
        return Plan::nothing(false);
    };
    let mut edits: Vec<_> = moment
        .snapshot
        .aliases_of(id)
        .map(|alias| Edit::EraseAlias(alias.name.clone(), alias.version))
        .collect();
    edits.push(Edit::EraseKey {
        key: id,
        version: entry.version,
        materials: entry.record.current(),
    });
    Plan::edit(true, edits).and_tell(entry, KeyChange::Destroyed)
}

fn switch(entry: &KeyEntry, state: KeyState, change: KeyChange) -> Plan<()> {
    if entry.record.state == state {
        return Plan::nothing(());
    }
    let next = entry.changed(|record| record.state = state);
    Plan::edit((), vec![Edit::Key(next)]).and_tell(entry, change)
}

fn new_key(
    inner: &Inner,
    moment: &Moment,
    tier: Tier,
    description: String,
    tags: Vec<Tag>,
) -> (KeyEntry, Vec<Edit>) {
    let id = KeyId::random(inner.random.as_ref());
    let created = moment.now.into();
    let rotation = match tier {
        Tier::Customer => None,
        Tier::Managed(_) | Tier::Owned(_) => Some(RotationRecord {
            period_days: AUTOMATIC_PERIOD_DAYS,
            next: crate::vault::Instant::from(moment.now).plus_days(AUTOMATIC_PERIOD_DAYS),
        }),
    };
    let entry = KeyEntry {
        arn: KeyArn::new(&inner.region, &inner.account, id),
        record: KeyRecord {
            spec: KeySpec::SymmetricDefault,
            usage: KeyUsage::EncryptDecrypt,
            origin: KeyOrigin::AwsKms,
            multi_region: false,
            tier,
            description,
            state: KeyState::Enabled,
            created,
            deletion: None,
            tags,
            rotation,
            materials: vec![MaterialRecord {
                created,
                kind: RotationKind::Creation,
            }],
        },
        version: 1,
    };
    let material = material::generate(entry.record.spec, inner.random.as_ref());
    let edits = vec![Edit::Material(id, 1, material), Edit::Key(entry.clone())];
    (entry, edits)
}

fn check_description(description: &str) -> Result<(), KeyringError> {
    if description.chars().count() > DESCRIPTION_LEN_MAX {
        return Err(KeyringError::Validation(format!(
            "Description must have a length of at most {DESCRIPTION_LEN_MAX}."
        )));
    }
    Ok(())
}
