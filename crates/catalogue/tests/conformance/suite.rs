//! How every catalogue behaves, on two handles of one store. Each case gets an empty one.

use std::{collections::BTreeSet, future::Future, time::Duration};

use catalogue::{
    Batch, Catalogue, CatalogueError, Changed, Expect, Key, Page, Sequence, Write, limits,
};
use tokio::time::timeout;

use crate::fixture::{
    CHANGES_KEPT, KEYS, Pair, STORE, VOLUMES, key, look, one, open, put, scope, seal,
};

/// Lists the cases once: `$each!` gets the name of every one.
macro_rules! for_each_case {
    ($each:ident) => {
        $each!(records_are_read_back_by_both_handles_and_open_at_their_version);
        $each!(pages_follow_the_order_of_keys_and_join_without_gap_or_overlap);
        $each!(a_page_of_long_records_ends_early_and_says_where_to_go_on);
        $each!(a_page_is_one_moment);
        $each!(a_batch_happens_whole_or_not_at_all);
        $each!(an_expectation_that_does_not_hold_is_a_conflict_that_names_the_record);
        $each!(the_loser_of_a_race_reads_seals_and_tries_again);
        $each!(an_erased_record_is_gone_and_begins_anew_at_version_1);
        $each!(requests_past_the_limits_are_invalid_and_change_nothing);
        $each!(the_sequence_rises_by_one_with_each_commit_and_with_nothing_else);
        $each!(changes_are_read_from_any_sequence_in_whole_commits);
        $each!(changes_that_are_no_longer_kept_are_said_to_be_trimmed);
        $each!(a_sequence_that_was_not_reached_is_refused);
        $each!(a_waiter_sees_the_other_handles_commit);
        $each!(a_follower_sees_every_commit_once);
        $each!(increments_by_many_tasks_on_both_handles_are_all_counted);
        $each!(both_handles_name_one_store_and_purge_keeps_what_is_there);
    };
}
pub(crate) use for_each_case;

/// Longer than the second that a commit may take to be seen, so that a busy machine fails nothing.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SEEN_WITHIN, what).await.expect("it is seen soon")
}

/// All pages of `limit`, joined.
async fn all_pages(
    handle: &dyn Catalogue,
    scope: Option<&catalogue::Scope>,
    limit: usize,
) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut after = None;
    loop {
        let Page { records, next } = handle
            .page(KEYS, scope, after.as_ref(), limit)
            .await
            .unwrap();
        assert!(records.len() <= limit);
        keys.extend(records.into_iter().map(|record| record.key));
        match next {
            Some(next) => after = Some(next),
            None => return keys,
        }
    }
}

pub(crate) async fn records_are_read_back_by_both_handles_and_open_at_their_version(pair: Pair) {
    let k = key("k");
    assert_eq!(look(&*pair.a, &k).await, None);
    pair.a
        .commit(one(&k, Expect::Absent, b"one"))
        .await
        .unwrap();
    for handle in [&pair.a, &pair.b] {
        assert_eq!(look(&**handle, &k).await, Some((1, b"one".to_vec())));
        assert_eq!(handle.get(VOLUMES, &k).await.unwrap(), None);
        assert_eq!(handle.get(KEYS, &key("K")).await.unwrap(), None);
    }
    pair.b
        .commit(one(&k, Expect::Version(1), b"two"))
        .await
        .unwrap();
    for handle in [&pair.a, &pair.b] {
        assert_eq!(look(&**handle, &k).await, Some((2, b"two".to_vec())));
    }
}

pub(crate) async fn pages_follow_the_order_of_keys_and_join_without_gap_or_overlap(pair: Pair) {
    let mut keys = BTreeSet::new();
    for account in ["", "1", "12", "2"] {
        for region in ["", "a", "b"] {
            for id in [&b"a"[..], b"aa", b"b", &[0], &[0, 0], &[0xff], &[0xff, 0]] {
                keys.insert(Key::new(scope(account, region), id));
            }
        }
    }
    let mut batch = Batch::new();
    for (n, key) in keys.iter().rev().enumerate() {
        batch = put(batch, key, Expect::Absent, &n.to_be_bytes());
    }
    // What another table has is in no page of this one.
    let elsewhere = key("elsewhere");
    let sealed = seal(VOLUMES, &elsewhere, Expect::Absent, b"");
    pair.a
        .commit(batch.put(VOLUMES, elsewhere, Expect::Absent, sealed))
        .await
        .unwrap();

    let all: Vec<Key> = keys.iter().cloned().collect();
    for limit in [1, 5, 7, all.len(), all.len() + 1, usize::MAX] {
        assert_eq!(
            all_pages(&*pair.b, None, limit).await,
            all,
            "pages of {limit}"
        );
    }
    for account in ["", "1", "12", "2", "3"] {
        for region in ["", "a", "b", "c"] {
            let scope = scope(account, region);
            let here: Vec<Key> = all
                .iter()
                .filter(|key| key.scope == scope)
                .cloned()
                .collect();
            for limit in [1, 3, 7, 100] {
                assert_eq!(all_pages(&*pair.b, Some(&scope), limit).await, here);
            }
        }
    }
    // After a key that is not there, and after one of another scope.
    let page = pair
        .b
        .page(KEYS, None, Some(&Key::new(scope("1", "a"), *b"ab")), 1)
        .await
        .unwrap();
    assert_eq!(page.records[0].key, Key::new(scope("1", "a"), *b"b"));
    let (before, behind) = (
        Key::new(scope("1", "a"), *b"x"),
        Key::new(scope("2", "a"), *b"x"),
    );
    let asked = scope("12", "a");
    let page = pair
        .b
        .page(KEYS, Some(&asked), Some(&before), 100)
        .await
        .unwrap();
    assert_eq!(page.records.len(), 7);
    let page = pair
        .b
        .page(KEYS, Some(&asked), Some(&behind), 100)
        .await
        .unwrap();
    assert_eq!(page, Page::default());
}

pub(crate) async fn a_page_of_long_records_ends_early_and_says_where_to_go_on(pair: Pair) {
    let plaintext = vec![5; limits::RECORD_LEN_MAX - 1000];
    let keys: Vec<Key> = (0..7).map(|n: u8| key([n])).collect();
    for key in &keys {
        pair.a
            .commit(one(key, Expect::Absent, &plaintext))
            .await
            .unwrap();
    }
    let first = pair.b.page(KEYS, None, None, 100).await.unwrap();
    assert!(first.records.len() < 7, "a page has an end");
    assert_eq!(
        first.next.as_ref(),
        first.records.last().map(|last| &last.key)
    );
    assert_eq!(open(KEYS, &first.records[0]), plaintext);
    assert_eq!(all_pages(&*pair.b, None, 100).await, keys);
}

pub(crate) async fn a_page_is_one_moment(pair: Pair) {
    let (left, right) = (key("left"), key("right"));
    let both = |expect, value: &[u8]| put(one(&left, expect, value), &right, expect, value);
    pair.a.commit(both(Expect::Absent, b"0")).await.unwrap();
    let writer = async {
        for n in 1..=40u64 {
            let batch = both(Expect::Version(n), n.to_string().as_bytes());
            pair.a.commit(batch).await.unwrap();
        }
    };
    let reader = async {
        loop {
            let page = pair.b.page(KEYS, None, None, 10).await.unwrap();
            let values: Vec<_> = page
                .records
                .iter()
                .map(|record| open(KEYS, record))
                .collect();
            assert_eq!(values[0], values[1], "half of a commit was seen");
            if values[0] == b"40" {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writer, reader);
}

pub(crate) async fn a_batch_happens_whole_or_not_at_all(pair: Pair) {
    let there = key("there");
    pair.a
        .commit(one(&there, Expect::Absent, b"there"))
        .await
        .unwrap();
    for wrong in [
        Write::Check {
            table: KEYS,
            key: key("y"),
            expect: Expect::Version(1),
        },
        Write::Erase {
            table: KEYS,
            key: key("y"),
            version: 1,
        },
    ] {
        let mut batch = one(&key("x"), Expect::Absent, b"x").erase(KEYS, there.clone(), 1);
        batch.push(wrong);
        let error = pair.a.commit(batch).await.unwrap_err();
        assert!(matches!(error, CatalogueError::Conflict { key: k, .. } if k == key("y")));
        for handle in [&pair.a, &pair.b] {
            assert_eq!(look(&**handle, &key("x")).await, None);
            assert!(look(&**handle, &there).await.is_some());
        }
    }
    let batch = one(&key("x"), Expect::Absent, b"x")
        .erase(KEYS, there.clone(), 1)
        .check(KEYS, key("y"), Expect::Absent);
    pair.a.commit(batch).await.unwrap();
    for handle in [&pair.a, &pair.b] {
        assert!(look(&**handle, &key("x")).await.is_some());
        assert_eq!(look(&**handle, &there).await, None);
    }
}

pub(crate) async fn an_expectation_that_does_not_hold_is_a_conflict_that_names_the_record(
    pair: Pair,
) {
    let (there, gone) = (key("there"), key("gone"));
    pair.a
        .commit(one(&there, Expect::Absent, b"1"))
        .await
        .unwrap();
    pair.a
        .commit(one(&there, Expect::Version(1), b"2"))
        .await
        .unwrap();
    let mut wrong = vec![(there.clone(), Expect::Absent)];
    for version in [0, 1, 3, u64::MAX >> 1, u64::MAX] {
        wrong.push((there.clone(), Expect::Version(version)));
    }
    for version in [0, 1, u64::MAX] {
        wrong.push((gone.clone(), Expect::Version(version)));
    }
    for (key, expect) in wrong {
        let mut batches = vec![
            one(&key, expect, b"lost"),
            Batch::new().check(KEYS, key.clone(), expect),
        ];
        if let Expect::Version(version) = expect {
            batches.push(Batch::new().erase(KEYS, key.clone(), version));
        }
        for batch in batches {
            match pair.b.commit(batch).await {
                Err(CatalogueError::Conflict { table, key: named }) => {
                    assert_eq!((table, named), (KEYS, key.clone()), "{expect:?}");
                }
                other => panic!("{expect:?}: {other:?}"),
            }
        }
    }
    assert_eq!(look(&*pair.a, &there).await, Some((2, b"2".to_vec())));
    assert_eq!(pair.a.sequence().await.unwrap(), Sequence(2));
}

pub(crate) async fn the_loser_of_a_race_reads_seals_and_tries_again(pair: Pair) {
    let k = key("k");
    pair.a.commit(one(&k, Expect::Absent, b"")).await.unwrap();
    let (seen_by_a, _) = look(&*pair.a, &k).await.unwrap();
    let (seen_by_b, _) = look(&*pair.b, &k).await.unwrap();
    pair.a
        .commit(one(&k, Expect::Version(seen_by_a), b"a"))
        .await
        .unwrap();
    let lost = pair
        .b
        .commit(one(&k, Expect::Version(seen_by_b), b"b"))
        .await;
    assert!(
        matches!(lost, Err(CatalogueError::Conflict { .. })),
        "{lost:?}"
    );
    let (version, mut value) = look(&*pair.b, &k).await.unwrap();
    value.push(b'b');
    pair.b
        .commit(one(&k, Expect::Version(version), &value))
        .await
        .unwrap();
    assert_eq!(look(&*pair.a, &k).await, Some((3, b"ab".to_vec())));
}

pub(crate) async fn an_erased_record_is_gone_and_begins_anew_at_version_1(pair: Pair) {
    let k = key("k");
    pair.a.commit(one(&k, Expect::Absent, b"1")).await.unwrap();
    pair.a
        .commit(one(&k, Expect::Version(1), b"2"))
        .await
        .unwrap();
    pair.b
        .commit(Batch::new().erase(KEYS, k.clone(), 2))
        .await
        .unwrap();
    assert_eq!(look(&*pair.a, &k).await, None);
    assert_eq!(all_pages(&*pair.a, None, 10).await, []);
    pair.a
        .commit(one(&k, Expect::Absent, b"new"))
        .await
        .unwrap();
    assert_eq!(look(&*pair.b, &k).await, Some((1, b"new".to_vec())));
}

pub(crate) async fn requests_past_the_limits_are_invalid_and_change_nothing(pair: Pair) {
    let k = key("k");
    let longest = key(vec![1; limits::ID_LEN_MAX]);
    let too_long = key(vec![1; limits::ID_LEN_MAX + 1]);
    let foreign = Key::new(scope("a b", ""), *b"k");
    let mut many = Batch::new();
    for n in 0..=limits::BATCH_STEPS_MAX {
        many = many.check(KEYS, key(n.to_be_bytes()), Expect::Absent);
    }
    let mut heavy = Batch::new();
    for n in 0..5u8 {
        heavy = put(heavy, &key([n]), Expect::Absent, &vec![0; 1_000_000]);
    }
    for (what, batch) in [
        ("nothing", Batch::new()),
        (
            "twice",
            one(&k, Expect::Absent, b"").check(KEYS, k.clone(), Expect::Absent),
        ),
        ("no id", one(&key(""), Expect::Absent, b"")),
        ("long id", one(&too_long, Expect::Absent, b"")),
        ("account", one(&foreign, Expect::Absent, b"")),
        (
            "long record",
            one(&k, Expect::Absent, &vec![0; limits::RECORD_LEN_MAX]),
        ),
        ("many steps", many),
        ("heavy", heavy),
    ] {
        match pair.b.commit(batch).await {
            Err(CatalogueError::Invalid(_)) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    let invalid = |error| matches!(error, CatalogueError::Invalid(_));
    assert!(invalid(pair.b.get(KEYS, &too_long).await.unwrap_err()));
    assert!(invalid(pair.b.page(KEYS, None, None, 0).await.unwrap_err()));
    assert!(invalid(pair.b.changes(Sequence(0), 0).await.unwrap_err()));
    assert_eq!(pair.b.sequence().await.unwrap(), Sequence(0));
    // The same key in two tables is two records.
    let twice = one(&longest, Expect::Absent, b"");
    let sealed = seal(VOLUMES, &longest, Expect::Absent, b"");
    let batch = twice.put(VOLUMES, longest, Expect::Absent, sealed);
    pair.b.commit(batch).await.unwrap();
}

pub(crate) async fn the_sequence_rises_by_one_with_each_commit_and_with_nothing_else(pair: Pair) {
    let k = key("k");
    assert_eq!(pair.a.sequence().await.unwrap(), Sequence(0));
    let two = put(one(&k, Expect::Absent, b""), &key("l"), Expect::Absent, b"");
    assert_eq!(pair.a.commit(two).await.unwrap(), Sequence(1));
    assert!(pair.b.commit(one(&k, Expect::Absent, b"")).await.is_err());
    assert_eq!(
        pair.b
            .commit(one(&k, Expect::Version(1), b""))
            .await
            .unwrap(),
        Sequence(2)
    );
    let check = Batch::new().check(KEYS, k.clone(), Expect::Version(2));
    assert_eq!(pair.a.commit(check).await.unwrap(), Sequence(3));
    assert_eq!(
        pair.b.commit(Batch::new().erase(KEYS, k, 2)).await.unwrap(),
        Sequence(4)
    );
    for handle in [&pair.a, &pair.b] {
        assert_eq!(handle.sequence().await.unwrap(), Sequence(4));
    }
}

pub(crate) async fn changes_are_read_from_any_sequence_in_whole_commits(pair: Pair) {
    let (k, l, m) = (key("k"), key("l"), Key::new(scope("", ""), *b"m"));
    let sealed = seal(VOLUMES, &m, Expect::Absent, b"");
    let first = put(one(&k, Expect::Absent, b""), &l, Expect::Absent, b"").put(
        VOLUMES,
        m.clone(),
        Expect::Absent,
        sealed,
    );
    pair.a.commit(first).await.unwrap();
    let check = Batch::new().check(KEYS, k.clone(), Expect::Version(1));
    pair.b.commit(check.clone()).await.unwrap();
    pair.a
        .commit(one(&k, Expect::Version(1), b"").erase(KEYS, l.clone(), 1))
        .await
        .unwrap();
    pair.b
        .commit(one(&k, Expect::Version(2), b""))
        .await
        .unwrap();

    let changed = |sequence, table: &str, key: &Key, version| Changed {
        sequence: Sequence(sequence),
        table: table.to_owned(),
        key: key.clone(),
        version,
    };
    let all = vec![
        changed(1, "keys", &k, Some(1)),
        changed(1, "keys", &l, Some(1)),
        changed(1, "volumes", &m, Some(1)),
        changed(3, "keys", &k, Some(2)),
        changed(3, "keys", &l, None),
        changed(4, "keys", &k, Some(3)),
    ];
    for handle in [&pair.a, &pair.b] {
        for after in 0..=4 {
            let found = handle.changes(Sequence(after), 100).await.unwrap();
            let expected: Vec<_> = all
                .iter()
                .filter(|change| change.sequence.0 > after)
                .cloned()
                .collect();
            assert_eq!(
                (found.changes, found.upto),
                (expected, Sequence(4)),
                "after {after}"
            );
        }
        for limit in 1..=7 {
            let (mut after, mut found) = (Sequence(0), Vec::new());
            while after < Sequence(4) {
                let some = handle.changes(after, limit).await.unwrap();
                assert!(some.upto > after, "it comes to an end");
                let whole = |change: &&Changed| (after..=some.upto).contains(&change.sequence);
                let of_these = all.iter().filter(whole).filter(|c| c.sequence > after);
                assert_eq!(some.changes.len(), of_these.count(), "half of a commit");
                found.extend(some.changes);
                after = some.upto;
            }
            assert_eq!(found, all, "{limit} at a time");
        }
    }
    // A commit that only checks is passed, too.
    pair.a
        .commit(Batch::new().check(KEYS, k, Expect::Version(3)))
        .await
        .unwrap();
    let found = pair.b.changes(Sequence(4), 1).await.unwrap();
    assert_eq!((found.changes, found.upto), (Vec::new(), Sequence(5)));
}

pub(crate) async fn changes_that_are_no_longer_kept_are_said_to_be_trimmed(pair: Pair) {
    // Each commit is 400 changes: of five, the last two are within what is kept.
    let each = CHANGES_KEPT * 2 / 5;
    for commit in 0..5u64 {
        let mut batch = Batch::new();
        for n in 0..each {
            let id = (commit * each + n).to_be_bytes();
            batch = put(batch, &key(id), Expect::Absent, b"");
        }
        pair.a.commit(batch).await.unwrap();
    }
    for handle in [&pair.a, &pair.b] {
        for after in 0..3 {
            let trimmed = handle.changes(Sequence(after), 100).await;
            assert!(
                matches!(trimmed, Err(CatalogueError::Trimmed)),
                "after {after}"
            );
        }
        let kept = handle.changes(Sequence(3), 1000).await.unwrap();
        assert_eq!(kept.changes.len() as u64, 2 * each);
        assert_eq!(kept.upto, Sequence(5));
        // Sequences are not those of changes: none is used again.
        assert_eq!(handle.sequence().await.unwrap(), Sequence(5));
    }
}

pub(crate) async fn a_sequence_that_was_not_reached_is_refused(pair: Pair) {
    pair.a
        .commit(one(&key("k"), Expect::Absent, b""))
        .await
        .unwrap();
    let changes = pair.b.changes(Sequence(2), 1).await;
    assert!(
        matches!(changes, Err(CatalogueError::Trimmed)),
        "{changes:?}"
    );
    let wait = soon(pair.b.wait(Sequence(2))).await;
    assert!(matches!(wait, Err(CatalogueError::Trimmed)), "{wait:?}");
    assert_eq!(soon(pair.b.wait(Sequence(0))).await.unwrap(), Sequence(1));
}

pub(crate) async fn a_waiter_sees_the_other_handles_commit(pair: Pair) {
    let k = key("k");
    let mut version = 0;
    for (writer, waiter) in [(&pair.a, &pair.b), (&pair.b, &pair.a), (&pair.a, &pair.a)] {
        let before = waiter.sequence().await.unwrap();
        // One that is given up harms no later one.
        let given_up = timeout(Duration::from_millis(20), waiter.wait(before)).await;
        assert!(given_up.is_err(), "nothing was committed: {given_up:?}");
        let expect = match version {
            0 => Expect::Absent,
            version => Expect::Version(version),
        };
        let commit = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            writer.commit(one(&k, expect, b"")).await.unwrap()
        };
        let (waited, committed) = tokio::join!(soon(waiter.wait(before)), commit);
        assert_eq!(waited.unwrap(), committed);
        version += 1;
        assert_eq!(
            look(&**waiter, &k).await.unwrap().0,
            version,
            "what is told is there"
        );
    }
}

pub(crate) async fn a_follower_sees_every_commit_once(pair: Pair) {
    const COMMITS: u64 = 60;
    let follower = async {
        let mut seen = Vec::new();
        let mut after = Sequence(0);
        while after < Sequence(COMMITS) {
            soon(pair.b.wait(after)).await.unwrap();
            let some = pair.b.changes(after, 7).await.unwrap();
            seen.extend(some.changes.into_iter().map(|change| change.sequence.0));
            after = some.upto;
        }
        seen
    };
    let writer = |handle: &'static str| {
        let store = if handle == "a" { &pair.a } else { &pair.b };
        async move {
            for n in 0..COMMITS / 2 {
                let k = key(format!("{handle}{n}"));
                store.commit(one(&k, Expect::Absent, b"")).await.unwrap();
            }
        }
    };
    let (seen, (), ()) = tokio::join!(follower, writer("a"), writer("b"));
    assert_eq!(seen, (1..=COMMITS).collect::<Vec<_>>());
}

pub(crate) async fn increments_by_many_tasks_on_both_handles_are_all_counted(pair: Pair) {
    const TASKS: u64 = 8;
    const EACH: u64 = 10;
    let k = key("counter");
    pair.a
        .commit(one(&k, Expect::Absent, &0u64.to_be_bytes()))
        .await
        .unwrap();
    let tasks = (0..TASKS).map(|task| {
        let handle = if task % 2 == 0 {
            pair.a.clone()
        } else {
            pair.b.clone()
        };
        let k = k.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                loop {
                    let (version, value) = look(&*handle, &k).await.unwrap();
                    let value = u64::from_be_bytes(value.try_into().unwrap()) + 1;
                    let next = one(&k, Expect::Version(version), &value.to_be_bytes());
                    match handle.commit(next).await {
                        Ok(_) => break,
                        Err(CatalogueError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        task.await.unwrap();
    }
    let total = TASKS * EACH;
    let counted = Some((1 + total, total.to_be_bytes().to_vec()));
    assert_eq!(look(&*pair.a, &k).await, counted);
    assert_eq!(pair.b.sequence().await.unwrap(), Sequence(1 + total));
}

pub(crate) async fn both_handles_name_one_store_and_purge_keeps_what_is_there(pair: Pair) {
    let (k, l) = (key("k"), key("l"));
    pair.a
        .commit(put(one(&k, Expect::Absent, b"k"), &l, Expect::Absent, b"l"))
        .await
        .unwrap();
    pair.a
        .commit(Batch::new().erase(KEYS, l.clone(), 1))
        .await
        .unwrap();
    for handle in [&pair.a, &pair.b] {
        assert_eq!(handle.store_id().await.unwrap(), STORE);
        handle.purge().await.unwrap();
    }
    for handle in [&pair.a, &pair.b] {
        assert_eq!(look(&**handle, &k).await, Some((1, b"k".to_vec())));
        assert_eq!(look(&**handle, &l).await, None);
        assert_eq!(handle.sequence().await.unwrap(), Sequence(2));
    }
}
