//! The queues between those who record and the writer.

use std::collections::VecDeque;

use crate::event::{Event, Lane, LaneLoss, Loss, LossSource};

/// How much each lane holds, by number of events and by their size in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Events, in the order of [`Lane::ALL`].
    pub events: [usize; 4],
    /// Bytes, in the order of [`Lane::ALL`].
    pub bytes: [usize; 4],
}

/// At 20,000 connections a second, the connection lanes bridge a disk that stalls for 1.6 s.
const CONNECTION_EVENTS: usize = 32_768;
const CONNECTION_BYTES: usize = 48 << 20;
/// Grants, revocations and the daemon's own news: far more than a host has live grants changing at once.
const VITAL_EVENTS: usize = 16_384;
const VITAL_BYTES: usize = 32 << 20;
/// What callers provoke.
const REQUEST_EVENTS: usize = 4_096;
const REQUEST_BYTES: usize = 8 << 20;
/// A queue that has grown gives its memory back above this many free places.
const KEEP_PLACES: usize = 1_024;

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits {
            events: [VITAL_EVENTS, REQUEST_EVENTS, CONNECTION_EVENTS, CONNECTION_EVENTS],
            bytes: [VITAL_BYTES, REQUEST_BYTES, CONNECTION_BYTES, CONNECTION_BYTES],
        }
    }
}

/// One lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LaneStats {
    /// Events in the queue now.
    pub queued: u64,
    /// Events lost since the start.
    pub lost: u64,
    /// Connection attempts that those events stood for.
    pub lost_attempts: u64,
}

struct Queued {
    /// Order of arrival over all lanes.
    ticket: u64,
    time_ms: u64,
    bytes: usize,
    event: Event,
}

#[derive(Default)]
struct LaneQueue {
    queue: VecDeque<Queued>,
    bytes: usize,
    stats: LaneStats,
    /// Lost and not recorded yet.
    unreported: (u64, u64),
}

pub(super) struct Lanes {
    limits: QueueLimits,
    lanes: [LaneQueue; 4],
    handed: u64,
    /// Times of the first and last event lost and not recorded yet.
    lost_ms: Option<(u64, u64)>,
    newest_ms: u64,
}

impl Lanes {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Lanes { limits, lanes: Default::default(), handed: 0, lost_ms: None, newest_ms: 0 }
    }

    /// Queues the event, or counts it where there is no room or nothing is taken any more. True if the
    /// writer may be asleep and has a reason to look.
    pub(super) fn push(&mut self, event: Event, time_ms: u64, closed: bool) -> bool {
        let was_idle = self.is_empty() && !self.has_loss();
        self.handed += 1;
        self.newest_ms = self.newest_ms.max(time_ms);
        let index = event.lane() as usize;
        let bytes = event.weight();
        let limits = self.limits.events.get(index).zip(self.limits.bytes.get(index));
        let room = self.lanes.get_mut(index).zip(limits).filter(|(lane, (events, most_bytes))| {
            !closed && lane.queue.len() < **events && lane.bytes + bytes <= **most_bytes
        });
        let Some((lane, (most_events, _))) = room else {
            self.lose(&event, time_ms);
            return was_idle;
        };
        lane.bytes += bytes;
        lane.queue.push_back(Queued { ticket: self.handed, time_ms, bytes, event });
        was_idle || lane.queue.len() == most_events / 2
    }

    /// Counts an event that will not be in the record.
    pub(super) fn lose(&mut self, event: &Event, time_ms: u64) {
        let attempts = event.attempts();
        if let Some(lane) = self.lanes.get_mut(event.lane() as usize) {
            lane.stats.lost += 1;
            lane.stats.lost_attempts += attempts;
            lane.unreported.0 += 1;
            lane.unreported.1 += attempts;
        }
        let first = self.lost_ms.map_or(time_ms, |(first, _)| first);
        self.lost_ms = Some((first, time_ms));
    }

    /// Moves the oldest events, at most `most`, to `batch`; false if there were none.
    pub(super) fn take(&mut self, batch: &mut Vec<(Event, u64)>, most: usize) -> bool {
        let mut taken = 0;
        while taken < most {
            let oldest = self
                .lanes
                .iter_mut()
                .filter(|lane| !lane.queue.is_empty())
                .min_by_key(|lane| lane.queue.front().map_or(u64::MAX, |queued| queued.ticket));
            let Some(lane) = oldest else { break };
            let Some(queued) = lane.queue.pop_front() else { break };
            lane.bytes -= queued.bytes;
            if lane.queue.is_empty() && lane.queue.capacity() > KEEP_PLACES {
                lane.queue.shrink_to(KEEP_PLACES);
            }
            batch.push((queued.event, queued.time_ms));
            taken += 1;
        }
        taken > 0
    }

    /// What was lost since the last call, as the record that says so, with its time.
    pub(super) fn take_loss(&mut self) -> Option<(Loss, u64)> {
        let (first_ms, last_ms) = self.lost_ms.take()?;
        let mut loss = Loss::new(LossSource::Queue, 0);
        loss.first_ms = Some(first_ms);
        loss.last_ms = Some(last_ms);
        for (lane, name) in self.lanes.iter_mut().zip(Lane::ALL) {
            let (events, attempts) = std::mem::take(&mut lane.unreported);
            if events > 0 {
                loss.events += events;
                loss.attempts += attempts;
                loss.lanes.push(LaneLoss { lane: name.as_str().into(), events, attempts });
            }
        }
        Some((loss, self.newest_ms))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue.is_empty())
    }

    /// Whether something was lost that no record says yet.
    pub(super) fn has_loss(&self) -> bool {
        self.lost_ms.is_some()
    }

    /// Whether a lane is at least half full, so that waiting for company would risk a loss.
    pub(super) fn is_pressed(&self) -> bool {
        self.lanes.iter().zip(self.limits.events).any(|(lane, most)| lane.queue.len() >= most / 2)
    }

    pub(super) fn handed(&self) -> u64 {
        self.handed
    }

    pub(super) fn stats(&self) -> [LaneStats; 4] {
        let mut all = [LaneStats::default(); 4];
        for (stats, lane) in all.iter_mut().zip(&self.lanes) {
            *stats = lane.stats;
            stats.queued = lane.queue.len() as u64;
        }
        all
    }
}
