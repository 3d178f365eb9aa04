//! What every object store must do. Each test gets a fresh store as `&dyn ObjectStore`.

mod buckets;
mod lists;
mod objects;
mod sealed;
mod uploads;

use s3::store::{ListQuery, ObjectStore};

pub(crate) use buckets::*;
pub(crate) use lists::*;
pub(crate) use objects::*;
pub(crate) use sealed::*;
pub(crate) use uploads::*;

/// Runs every test of the suite on every subject.
macro_rules! suite {
    ($($subject:ident),* $(,)?) => {
        $(mod $subject { crate::conformance::tests! { $subject
            buckets_are_created_listed_and_deleted
            a_bucket_with_objects_is_not_deleted
            a_bucket_deleted_with_uploads_comes_back_empty
            nothing_is_found_in_a_closed_bucket_or_put_into_it
            sealed_records_are_walked_page_by_page
            a_record_is_put_anew_only_where_it_still_stands
            objects_of_every_size_come_back
            any_range_of_chunks_can_be_read
            a_read_outside_an_object_is_refused
            records_come_back_as_they_were_committed
            keys_are_bytes_and_never_paths
            keys_outside_the_limits_are_refused_or_not_there
            a_put_replaces_the_object_at_commit_and_not_before
            an_abandoned_or_unfinished_put_leaves_nothing
            chunks_out_of_form_are_refused
            conditions_are_checked_at_commit
            of_many_that_want_to_be_first_one_is
            sequences_rise_and_are_never_used_again
            a_new_envelope_moves_no_data
            envelopes_that_are_too_long_are_refused
            a_reader_keeps_what_it_opened
            deleting_says_what_was_there
            many_are_deleted_each_by_itself
            lists_are_in_byte_order_and_in_pages
            lists_roll_up_common_prefixes
            a_list_starts_after_any_name
            odd_list_queries_are_answered
            parts_become_an_object
            a_part_sent_again_replaces_the_first
            a_completion_is_checked_whole
            an_upload_that_is_over_is_gone
            an_upload_needs_its_own_bucket_and_key
            an_empty_part_is_a_part
            uploads_are_listed_by_key_and_age
            uploads_are_rolled_up
            many_write_and_read_at_once
        }})*
    };
}
pub(crate) use suite;

macro_rules! tests {
    ($subject:ident $($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let subject = crate::$subject();
            crate::conformance::$name(&*subject.store).await;
        })*
    };
}
pub(crate) use tests;

async fn with_bucket(store: &dyn ObjectStore) {
    store.create_bucket("b").await.unwrap();
}

fn query(prefix: &str, delimiter: Option<&str>, after: Option<&str>, limit: usize) -> ListQuery {
    ListQuery {
        prefix: prefix.into(),
        delimiter: delimiter.map(str::to_owned),
        after: after.map(str::to_owned),
        limit,
    }
}

async fn names(store: &dyn ObjectStore, query: ListQuery) -> (Vec<String>, bool) {
    let page = store.list("b", &query).await.unwrap();
    (
        page.entries
            .iter()
            .map(|entry| entry.name().to_owned())
            .collect(),
        page.truncated,
    )
}

/// All pages of a list, one after another.
async fn all_names(store: &dyn ObjectStore, mut query: ListQuery) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let (names, truncated) = names(store, query.clone()).await;
        assert!(names.len() <= query.limit);
        query.after = names.last().cloned();
        all.extend(names);
        if !truncated {
            return all;
        }
    }
}
