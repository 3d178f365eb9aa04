//! New material for an old key: on demand, by the calendar, and what is told of it.
//!
//! Rotation keeps everything of a key and adds a material, which seals from then on. Every earlier
//! one stays and opens what it sealed.

use iam::Authorized;

use crate::{
    change::{Edit, Moment, Plan},
    error::KeyringError,
    event::KeyChange,
    key::KeyArn,
    key_state::KeyState,
    keyring::{Inner, Keyring},
    list::{Limits, Listing},
    material,
    metadata::{Listed, MaterialId, Page, Rotation, RotationKind, RotationStatus},
    resource::NamedKey,
    snapshot::KeyEntry,
    trail::Trail,
    vault::{Instant, MaterialRecord, RotationRecord},
};

/// On-demand rotations of a key, at most (KMS quota).
const ON_DEMAND_MAX: usize = 25;
/// The period of keys that rotate without being told how often, in days.
pub(crate) const AUTOMATIC_PERIOD_DAYS: u32 = 365;

impl Keyring {
    /// Gives a key new material now; 25 times a key at most.
    pub async fn rotate_key_on_demand(
        &self,
        authorized: Authorized<iam::RotateKeyOnDemand, NamedKey>,
    ) -> Result<KeyArn, KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, moment: &Moment, trail: &mut Trail| {
            let entry = inner.admit(&authorized)?;
            let rotations = entry.record.materials.iter();
            let on_demand = rotations
                .filter(|material| material.kind == RotationKind::OnDemand)
                .count();
            if on_demand >= ON_DEMAND_MAX {
                return Err(KeyringError::LimitExceeded(format!(
                    "{} was rotated on demand {ON_DEMAND_MAX} times, the most a key can be.",
                    entry.arn
                )));
            }
            let plan = rotate(inner, moment, &entry, RotationKind::OnDemand)?;
            trail.material = Some(plan.answer);
            Ok(Plan {
                edits: plan.edits,
                events: plan.events,
                answer: entry.arn.clone(),
            })
        };
        self.inner.change(trail, plan).await
    }

    /// Lets a key rotate every 90 to 2560 days, 365 if not given, counted from now.
    pub async fn enable_key_rotation(
        &self,
        authorized: Authorized<iam::EnableKeyRotation, NamedKey>,
        period_days: Option<i64>,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, moment: &Moment, _: &mut Trail| {
            let period_days = match period_days.map(u32::try_from) {
                None => AUTOMATIC_PERIOD_DAYS,
                Some(Ok(days @ 90..=2560)) => days,
                Some(_) => {
                    return Err(KeyringError::Validation(
                        "RotationPeriodInDays must be between 90 and 2560.".to_owned(),
                    ));
                }
            };
            let rotation = RotationRecord {
                period_days,
                next: Instant::from(moment.now).plus_days(period_days),
            };
            let next = inner
                .admit(&authorized)?
                .changed(|record| record.rotation = Some(rotation));
            Ok(Plan::edit((), vec![Edit::Key(next)]))
        };
        self.inner.change(trail, plan).await
    }

    /// Lets a key rotate on demand only.
    pub async fn disable_key_rotation(
        &self,
        authorized: Authorized<iam::DisableKeyRotation, NamedKey>,
    ) -> Result<(), KeyringError> {
        let trail = self.inner.trail(&authorized);
        let plan = move |inner: &Inner, _: &Moment, _: &mut Trail| {
            let next = inner
                .admit(&authorized)?
                .changed(|record| record.rotation = None);
            Ok(Plan::edit((), vec![Edit::Key(next)]))
        };
        self.inner.change(trail, plan).await
    }

    /// Whether and when a key rotates. One that is pending deletion does not.
    pub async fn get_key_rotation_status(
        &self,
        authorized: Authorized<iam::GetKeyRotationStatus, NamedKey>,
    ) -> Result<RotationStatus, KeyringError> {
        let result = self.inner.admit(&authorized).map(|entry| {
            let pending = entry.record.state == KeyState::PendingDeletion;
            let rotation = entry.record.rotation.filter(|_| !pending);
            RotationStatus {
                key: entry.arn.clone(),
                period_days: rotation.map(|rotation| rotation.period_days),
                next: rotation.map(|rotation| rotation.next.into()),
            }
        });
        self.inner
            .finish(self.inner.trail(&authorized), result)
            .await
    }

    /// The rotations a key has had, oldest first.
    pub async fn list_key_rotations(
        &self,
        authorized: Authorized<iam::ListKeyRotations, NamedKey>,
        page: Page,
    ) -> Result<Listed<Rotation>, KeyringError> {
        let result = self.inner.admit(&authorized).and_then(|entry| {
            let listing = Listing::<u32>::new(&page, Limits::KEYS)?;
            let after = listing.after().copied().unwrap_or(1);
            let rotations = (1..=entry.record.current())
                .zip(&entry.record.materials)
                .filter(|(number, _)| *number > after)
                .map(|(number, material)| {
                    let rotation = Rotation {
                        material: MaterialId::of(entry.id(), number),
                        date: material.created.into(),
                        kind: material.kind,
                    };
                    (number, rotation)
                });
            Ok(listing.collect(rotations))
        });
        self.inner
            .finish(self.inner.trail(&authorized), result)
            .await
    }
}

/// New material for `entry`; the answer is its number.
pub(crate) fn rotate(
    inner: &Inner,
    moment: &Moment,
    entry: &KeyEntry,
    kind: RotationKind,
) -> Result<Plan<u32>, KeyringError> {
    let number = entry.record.current().checked_add(1).ok_or_else(|| {
        KeyringError::LimitExceeded(format!("{} cannot be rotated again.", entry.arn))
    })?;
    let now = Instant::from(moment.now);
    let next = entry.changed(|record| {
        record.materials.push(MaterialRecord { created: now, kind });
        if let Some(rotation) = &mut record.rotation
            && kind == RotationKind::Automatic
        {
            rotation.next = now.plus_days(rotation.period_days);
        }
    });
    let material = material::generate(entry.record.spec, inner.random.as_ref());
    let edits = vec![
        Edit::Material(entry.id(), number, material),
        Edit::Key(next),
    ];
    Ok(Plan::edit(number, edits).and_tell(entry, KeyChange::Rotated))
}
