//! Noting what deliveries outdate: all that wait at once, since each note waits for the disk.
//!
//! Knows: the order note ▸ remember ▸ remove bodies ▸ fetch again. Does not know: HTTP, what an event
//! means.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::Door;
use super::identities::Identity;
use super::webhook::Delivery;
use crate::alias::Alias;
use crate::cache::Ask;
use crate::cutoff::{Cutoff, CutoffMode, Cutoffs};
use crate::request::Request;
use crate::stack::{Cleaned, Saved};
use crate::tag::Scope;

/// Deliveries that one note covers at most.
const MAX_AT_ONCE: usize = 5_000;

/// After a note that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How often removing bodies is tried while somebody else saves the bundle.
const MAX_REMOVALS: u32 = 60;

/// At the end, removals may take so long.
const LAST_REMOVALS: Duration = Duration::from_secs(5);

/// When what was outdated is fetched again, in seconds after the delivery: at once, and again whenever
/// GitHub's own lag may have ended (`cutoff`).
const REFETCH_AFTER_SECS: [u64; 4] = [0, 3, 11, 61];

/// Entries that are fetched again for one note.
const MAX_REFETCHED: usize = 200;

/// Of those, at once.
const REFETCHES_AT_ONCE: usize = 4;

/// Notes whose entries are being fetched again; what comes beyond is fetched when it is asked for.
const MAX_REFETCHING: usize = 8;

/// Of a limit, this share is left to clients, in percent.
const RESERVE_PERCENT: u64 = 20;

/// Notes what deliveries outdate until `no_more` of them come, and then what has come by then.
pub(super) async fn run(
    door: Arc<Door>,
    mut deliveries: mpsc::Receiver<Delivery>,
    mut no_more: oneshot::Receiver<()>,
    refetch: bool,
) {
    let refetching = Arc::new(Semaphore::new(MAX_REFETCHING));
    let mut batch = Vec::new();
    // Beside the notes, which do not wait for them; ended with us.
    let mut removals = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            count = deliveries.recv_many(&mut batch, MAX_AT_ONCE) => {
                if count == 0 {
                    break;
                }
            }
            // What has come is noted before the end.
            _ = &mut no_more, if !deliveries.is_closed() => {
                deliveries.close();
                continue;
            }
        }
        let (mut merged, now) = (Cutoffs::default(), door.identities.common().clock.now());
        for delivery in &batch {
            delivery.cutoffs.iter().cloned().for_each(|cutoff| merged.add(cutoff, now));
        }
        learn(&door, batch.iter().flat_map(|delivery| delivery.aliases.iter().cloned()).collect()).await;
        let cutoffs: Arc<Vec<Cutoff>> = Arc::new(merged.iter().cloned().collect());
        while !noted(&door, cutoffs.clone()).await {
            // Nobody may wait for a disk that never comes back.
            if deliveries.is_closed() {
                tracing::error!(deliveries = batch.len(), "what deliveries outdate is lost; clear the store");
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        write_down(&door, batch.iter().filter_map(|delivery| delivery.removes).collect()).await;
        if let Some(webhook) = &door.webhook {
            batch.drain(..).for_each(|delivery| webhook.applied(delivery));
        }
        batch.clear();
        while removals.try_join_next().is_some() {}
        if cutoffs.iter().any(|cutoff| cutoff.mode == CutoffMode::Gone) {
            let removing = (door.clone(), cutoffs.clone());
            removals.spawn(async move { remove_bodies(&removing.0, &removing.1).await });
        }
        if refetch && let Ok(place) = refetching.clone().try_acquire_owned() {
            let door = door.clone();
            tokio::spawn(async move {
                fetch_again(&door, &cutoffs).await;
                drop(place);
            });
        }
    }
    // What is not removed by then is dropped by the next pack; it answers nothing any more.
    let _in_time = tokio::time::timeout(LAST_REMOVALS, async { while removals.join_next().await.is_some() {} }).await;
}

/// On another thread: it waits for the disk.
async fn noted(door: &Arc<Door>, cutoffs: Arc<Vec<Cutoff>>) -> bool {
    let stack = door.identities.common().stack.clone();
    let to_note = cutoffs.clone();
    let noted = tokio::task::spawn_blocking(move || stack.invalidate(&to_note)).await;
    match noted {
        Ok(Ok(())) => {
            if let Some(share) = &door.identities.common().share {
                share.outdate(&door.identities.common().stack.with_twins(&cutoffs));
            }
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "what deliveries outdate cannot be noted; trying again");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "what deliveries outdate was not noted; trying again");
            false
        }
    }
}

/// On another thread, too.
async fn learn(door: &Arc<Door>, aliases: Vec<Alias>) {
    let stack = door.identities.common().stack.clone();
    if tokio::task::spawn_blocking(move || stack.learn(aliases)).await.is_err() {
        tracing::warn!("names and numbers of repositories were not noted");
    }
}

/// On another thread, too.
async fn write_down(door: &Arc<Door>, digests: Vec<[u8; 32]>) {
    let door = door.clone();
    let written = tokio::task::spawn_blocking(move || {
        if let Some(webhook) = &door.webhook {
            webhook.write_down(&digests);
        }
    });
    if written.await.is_err() {
        tracing::warn!("which deliveries removed something was not written down");
    }
}

/// What must be gone leaves the disk, too, not only the answers.
async fn remove_bodies(door: &Arc<Door>, cutoffs: &[Cutoff]) {
    let gone = cutoffs.iter().filter(|cutoff| cutoff.mode == CutoffMode::Gone);
    let scopes: Vec<Scope> = gone.map(|cutoff| cutoff.scope.clone()).collect();
    let stack = door.identities.common().stack.clone();
    for scope in scopes {
        for _ in 0..MAX_REMOVALS {
            let (stack, of) = (stack.clone(), scope.clone());
            match tokio::task::spawn_blocking(move || stack.clear(&of)).await {
                // Somebody saves the bundle, with it in there.
                Ok(Ok(Cleaned { bundle: Some(Saved::Busy), .. })) => tokio::time::sleep(PAUSE).await,
                Ok(Ok(cleaned)) => {
                    tracing::info!(%scope, removed = cleaned.removed, "removed what must be gone");
                    break;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%scope, %error, "not removed from disk; it answers nothing any more");
                    break;
                }
                Err(error) => {
                    tracing::warn!(%scope, %error, "removing ended early; it answers nothing any more");
                    break;
                }
            }
        }
    }
}

/// Asks anew for what memory holds of it, as those whose answers they are.
async fn fetch_again(door: &Door, cutoffs: &[Cutoff]) {
    let entries = door.identities.common().stack.in_memory_of(cutoffs, MAX_REFETCHED);
    let identities = door.identities.all();
    let wanted: Vec<(Arc<Identity>, Request)> = entries
        .iter()
        .filter_map(|entry| {
            let identity = identities.iter().find(|one| *one.cache.partition() == entry.parts.partition)?;
            let request = entry.parts.request(identity.cache.api(), entry.listing.as_deref())?;
            Some((identity.clone(), request))
        })
        .collect();
    let mut before = 0;
    for after in REFETCH_AFTER_SECS {
        tokio::time::sleep(Duration::from_secs(after - before)).await;
        before = after;
        let asked = futures_util::stream::iter(wanted.clone());
        let asked = asked.map(|(identity, request)| async move { fetch(&identity, &request).await });
        asked.buffer_unordered(REFETCHES_AT_ONCE).collect::<Vec<()>>().await;
    }
}

async fn fetch(identity: &Identity, request: &Request) {
    let reserve = identity.github.limit(request).map_or(0, |limit| limit.limit * RESERVE_PERCENT / 100);
    if identity.cache.upstream().allowance(request).is_some_and(|left| left <= reserve) {
        return;
    }
    if let Err(error) = identity.cache.get(request, &Ask { unfollowed: true, ..Ask::default() }).await {
        tracing::debug!(%error, target = %request.target(), "not fetched again");
    }
}
