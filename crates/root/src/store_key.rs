//! The store key: opened, made, and rotated.

use std::{path::PathBuf, sync::Arc};

use crypto::{random::Random, store_key::GenerationKey};
use host::Disk;
use tokio::sync::Mutex;

use crate::{
    blocking::blocking,
    error::RootError,
    generations::{Generation, Generations, RecordKey},
    header::{Header, ReadHeader, Wrap},
    header_file::{Found, HeaderFile},
    id::{RootKeyId, StoreId},
    pass::{Advanced, Pass},
    provider::{Kind, RootKeyProvider},
    reseal::Reseal,
};

/// What a store key is opened with.
#[derive(Clone)]
pub struct Options {
    /// The disk that the data directory is on.
    pub disk: Arc<dyn Disk>,
    /// The data directory, held by this process alone.
    pub dir: PathBuf,
    /// Who unwraps the store key.
    pub provider: Arc<dyn RootKeyProvider>,
    /// Keys and nonces.
    pub random: Arc<dyn Random>,
    /// Whether a store key may be made if there is no header: true only if the store is known to hold nothing.
    pub may_make: bool,
}

/// The key of a store. Cheap to clone; all clones see a rotation.
#[derive(Clone)]
pub struct StoreKey {
    store: StoreId,
    generations: Arc<Generations>,
    header: Arc<Mutex<Keeper>>,
}

/// What is said of a store key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The store.
    pub store: StoreId,
    /// How often the header was written.
    pub sequence: u64,
    /// The kind of provider that wraps the store key.
    pub kind: Kind,
    /// Where the root key is.
    pub root_key_at: String,
    /// The root key's public id.
    pub root_key: RootKeyId,
    /// The generation that seals.
    pub generation: u32,
    /// The one before it, while records under it are left.
    pub previous: Option<u32>,
}

/// What the header in `dir` says, read without any key and so not authenticated: for people, while the store may be in
/// use. `None` if there is none. `root_key_at` is empty.
pub async fn inspect(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<Option<Status>, RootError> {
    let file = HeaderFile::new(disk, dir);
    match blocking(move || file.read()).await? {
        Found::Nothing => Ok(None),
        Found::Header { read, .. } => Ok(Some(Status::of(&read.header, String::new()))),
    }
}

impl Status {
    fn of(header: &Header, root_key_at: String) -> Self {
        let wrapped = &header.wraps[0].wrapped;
        Self {
            store: header.store,
            sequence: header.sequence,
            kind: wrapped.kind,
            root_key_at,
            root_key: wrapped.root_key,
            generation: header.current,
            previous: header.previous,
        }
    }
}

/// The header and who may change it.
struct Keeper {
    file: HeaderFile,
    header: Header,
    provider: Arc<dyn RootKeyProvider>,
    random: Arc<dyn Random>,
    /// Set while a change is under way, and for good after one that failed: what the disk has is not known then.
    unknown: bool,
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoreKey").field(&self.store).finish()
    }
}

impl StoreKey {
    /// Opens the store's key, or makes one (and a root key, if there is none) where that is allowed.
    ///
    /// Refused without having changed anything: a root key that is missing, damaged or another store's; a header that
    /// is gone, damaged in both copies, changed by hand or newer. One damaged copy is written again, with a warning.
    /// What an interrupted rotation of the root key left is tidied: the root key given stays the only one.
    pub async fn open(options: Options) -> Result<Self, RootError> {
        let file = HeaderFile::new(Arc::clone(&options.disk), options.dir.clone());
        let reading = file.clone();
        match blocking(move || reading.read()).await? {
            Found::Nothing if options.may_make => Self::make(options, file).await,
            Found::Nothing => Err(RootError::HeaderMissing { path: file.path() }),
            Found::Header { read, repair } => Self::open_read(options, file, read, repair).await,
        }
    }

    async fn make(options: Options, file: HeaderFile) -> Result<Self, RootError> {
        // The root key is durable before the header that needs it.
        if options.provider.ensure().await? {
            tracing::info!(
                at = %options.provider.describe(),
                "made a root key: keep a copy of it apart from the data"
            );
        }
        let mut header = Header::new(&*options.random);
        let generation = Generation {
            number: header.current,
            key: GenerationKey::generate(&*options.random),
        };
        header.wraps = wrap_all(header.store, [&generation], &*options.provider).await?;
        let mut keeper = Keeper::new(options, file, header.clone());
        keeper.change(header, &generation.key).await?;
        Ok(Self::assemble(keeper, generation, None))
    }

    async fn open_read(
        options: Options,
        file: HeaderFile,
        read: ReadHeader,
        repair: Option<String>,
    ) -> Result<Self, RootError> {
        let header = read.header.clone();
        let mut keeper = Keeper::new(options, file, header.clone());
        let current = keeper.unwrap(header.current).await?;
        if !read.authenticates(&current.key) {
            return Err(RootError::HeaderForged {
                path: keeper.file.path(),
            });
        }
        let previous = match header.previous {
            Some(number) => Some(keeper.unwrap(number).await?),
            None => None,
        };
        let ours = keeper.root_key(current.number);
        let tidy: Vec<Wrap> = header
            .wraps
            .iter()
            .filter(|wrap| Some(wrap.wrapped.root_key) == ours)
            .cloned()
            .collect();
        if tidy.len() < header.wraps.len() {
            tracing::warn!(
                "a rotation of the root key was interrupted: the root key at hand stays the only one"
            );
            let tidied = Header {
                wraps: tidy,
                ..header
            };
            keeper.change(tidied, &current.key).await?;
        } else if let Some(what) = repair {
            tracing::warn!("one copy of the root header is written again: {what}");
            // Also what makes a header durable that an interrupted change left in one place.
            let writing = keeper.file.clone();
            blocking(move || writing.write(&read.bytes)).await?;
        }
        Ok(Self::assemble(keeper, current, previous))
    }

    fn assemble(keeper: Keeper, current: Generation, previous: Option<Generation>) -> Self {
        Self {
            store: keeper.header.store,
            generations: Arc::new(Generations::new(current, previous)),
            header: Arc::new(Mutex::new(keeper)),
        }
    }

    /// The store's name, which each of its parts carries.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The key of the records in the table `name`. Equal names give equal keys.
    pub fn table(&self, name: &str) -> RecordKey {
        RecordKey::new(Arc::clone(&self.generations), name)
    }

    /// What is known of the store key and its root key.
    pub async fn status(&self) -> Status {
        let keeper = self.header.lock().await;
        Status::of(&keeper.header, keeper.provider.describe())
    }

    /// Replaces the root key by that of `new`, which is made if there is none there. One record is rewritten; no other
    /// is touched. Killed at any step, the store opens under the old root key or under the new one.
    pub async fn rotate_root(&self, new: Arc<dyn RootKeyProvider>) -> Result<(), RootError> {
        self.open_to(&new, false).await
    }

    /// As [`rotate_root`](Self::rotate_root), but the store opens under the old root key **and** under the new one,
    /// until it is opened again under one of them or [`rotate_root`](Self::rotate_root) is called. For a new root key
    /// that takes the old one's place between the two.
    pub async fn open_to_both(&self, new: &Arc<dyn RootKeyProvider>) -> Result<(), RootError> {
        self.open_to(new, true).await
    }

    async fn open_to(&self, new: &Arc<dyn RootKeyProvider>, both: bool) -> Result<(), RootError> {
        let mut keeper = self.header.lock().await;
        keeper.check()?;
        new.ensure().await?;
        let live = self.generations.live();
        let generations = [Some(&live.current), live.previous.as_ref()];
        let generations = generations.into_iter().flatten().map(|g| &**g);
        let mut wraps = wrap_all(self.store, generations, &**new).await?;
        if both {
            let ours = keeper.root_key(live.current.number);
            let old = keeper
                .header
                .wraps
                .iter()
                .filter(|wrap| Some(wrap.wrapped.root_key) == ours);
            let mut all: Vec<Wrap> = old.cloned().collect();
            all.retain(|wrap| wrap.wrapped.root_key != wraps[0].wrapped.root_key);
            all.append(&mut wraps);
            wraps = all;
        }
        let header = Header {
            wraps,
            ..keeper.header.clone()
        };
        keeper.change(header, &live.current.key).await?;
        if !both {
            keeper.provider = Arc::clone(new);
        }
        Ok(())
    }

    /// Begins a rotation of the store key, or goes on with the one that was interrupted. From its return on, records
    /// are sealed under the new generation, which is durable; both open.
    pub async fn rotate(&self) -> Result<Rotation, RootError> {
        let mut keeper = self.header.lock().await;
        keeper.check()?;
        let live = self.generations.live();
        if let Some(previous) = &live.previous {
            return Ok(Rotation {
                key: self.clone(),
                from: previous.number,
            });
        }
        let number = live
            .current
            .number
            .checked_add(1)
            .ok_or(RootError::Exhausted)?;
        let new = Arc::new(Generation {
            number,
            key: GenerationKey::generate(&*keeper.random),
        });
        let provider = Arc::clone(&keeper.provider);
        // The current generation again too: the root key may have been replaced since it was wrapped.
        let wraps = wrap_all(self.store, [&*new, &*live.current], &*provider).await?;
        let header = Header {
            current: number,
            previous: Some(live.current.number),
            wraps,
            ..keeper.header.clone()
        };
        // Durable before anything is sealed under it: a record under a generation that no header has is lost.
        keeper.change(header, &new.key).await?;
        self.generations
            .publish(new, Some(Arc::clone(&live.current)));
        Ok(Rotation {
            key: self.clone(),
            from: live.current.number,
        })
    }
}

/// A rotation of the store key under way: both generations live until it is finished. Dropping it changes nothing;
/// [`StoreKey::rotate`] takes it up again, in this process or the next.
#[derive(Debug)]
pub struct Rotation {
    key: StoreKey,
    from: u32,
}

impl Rotation {
    /// The generation that is left.
    pub fn old_generation(&self) -> u32 {
        self.from
    }

    /// Re-seals the page that `pass` is at, of `owners`, who must be all there are, and ends the rotation once a whole
    /// pass found nothing: the old generation is forgotten then. The same call goes on after a kill, from the pass
    /// that was kept last, or from the first: what was done twice finds less to do.
    ///
    /// Dropped while it ends the rotation, it is not known whether it ended, until the store is opened anew.
    pub async fn advance(
        &self,
        owners: &[Arc<dyn Reseal>],
        pass: Pass,
    ) -> Result<Advanced, RootError> {
        // A record sealed before the rotation and committed behind the pass would be lost with its generation.
        self.key.generations.settled().await;
        let advanced = pass.page(owners).await?;
        if matches!(advanced, Advanced::Finished) {
            self.finish().await?;
        }
        Ok(advanced)
    }

    /// [`advance`](Self::advance)s to the end. `progress` is called after each page with the records re-sealed so far.
    /// May be cancelled anywhere and begun again.
    pub async fn run(
        self,
        owners: &[Arc<dyn Reseal>],
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RootError> {
        let (mut total, mut pass) = (0, Pass::default());
        loop {
            match self.advance(owners, pass).await? {
                Advanced::Page { next, resealed } => {
                    total += resealed;
                    progress(total);
                    pass = next;
                }
                Advanced::Finished => return Ok(()),
            }
        }
    }

    async fn finish(&self) -> Result<(), RootError> {
        let mut keeper = self.key.header.lock().await;
        keeper.check()?;
        let current = Arc::clone(&self.key.generations.live().current);
        let mut header = Header {
            previous: None,
            ..keeper.header.clone()
        };
        header
            .wraps
            .retain(|wrap| wrap.generation == current.number);
        keeper.change(header, &current.key).await?;
        self.key.generations.publish(current, None);
        Ok(())
    }
}

impl Keeper {
    fn new(options: Options, file: HeaderFile, header: Header) -> Self {
        Self {
            file,
            header,
            provider: options.provider,
            random: options.random,
            unknown: false,
        }
    }

    fn check(&self) -> Result<(), RootError> {
        if self.unknown {
            return Err(RootError::Unknown);
        }
        Ok(())
    }

    /// Writes `header` as the next one; returns when it is durable. If the caller stops waiting, or on an error, it is
    /// not known whether it took place, and no further change is made.
    async fn change(
        &mut self,
        mut header: Header,
        current: &GenerationKey,
    ) -> Result<(), RootError> {
        self.unknown = true;
        header.sequence = self.header.sequence + 1;
        let bytes = header.encode(current);
        let file = self.file.clone();
        blocking(move || file.write(&bytes)).await?;
        self.header = header;
        self.unknown = false;
        Ok(())
    }

    /// The root key, of those the header is wrapped under, that our provider has: found by [`unwrap`](Self::unwrap),
    /// which puts its wrap first.
    fn root_key(&self, generation: u32) -> Option<RootKeyId> {
        let mut wraps = self.header.wraps.iter();
        wraps
            .find(|wrap| wrap.generation == generation)
            .map(|wrap| wrap.wrapped.root_key)
    }

    /// The secret of `generation`, under whichever root key of the header's the provider has.
    async fn unwrap(&mut self, generation: u32) -> Result<Generation, RootError> {
        let aad = Header::aad(self.header.store, generation);
        let wraps = self.header.wraps.iter().enumerate();
        let candidates: Vec<(usize, Wrap)> = wraps
            .filter(|(_, wrap)| wrap.generation == generation)
            .map(|(at, wrap)| (at, wrap.clone()))
            .collect();
        let kind = self.provider.kind();
        let mut refused = None;
        for (at, wrap) in &candidates {
            if wrap.wrapped.kind != kind {
                continue;
            }
            match self.provider.unwrap(&wrap.wrapped, &aad).await {
                Ok(key) => {
                    let first = candidates[0].0;
                    self.header.wraps.swap(first, *at);
                    return Ok(Generation {
                        number: generation,
                        key,
                    });
                }
                Err(error @ RootError::WrongRootKey { .. }) => refused = refused.or(Some(error)),
                Err(RootError::Unauthentic) => {
                    return Err(RootError::HeaderForged {
                        path: self.file.path(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| RootError::WrongKind {
            from: self.provider.describe(),
            needed: candidates[0].1.wrapped.kind.to_string(),
        }))
    }
}

/// `generations`, each wrapped by `provider`. Not empty.
async fn wrap_all(
    store: StoreId,
    generations: impl IntoIterator<Item = &Generation>,
    provider: &dyn RootKeyProvider,
) -> Result<Vec<Wrap>, RootError> {
    let mut wraps = Vec::new();
    for generation in generations {
        let aad = Header::aad(store, generation.number);
        wraps.push(Wrap {
            generation: generation.number,
            wrapped: provider.wrap(&generation.key, &aad).await?,
        });
    }
    Ok(wraps)
}
