//! How large the next document of a batch is, and when GraphQL is taken to be out of order.
//!
//! Knows: what became of those before. Does not know: what is asked.

use super::flight::MAX_POINTS;

/// Aliases of the first document; it halves and grows with what GitHub makes of it.
const FIRST_SIZE: usize = 50;

/// Aliases of the largest.
const MAX_SIZE: usize = 100;

/// How many aliases a document has.
pub(super) struct Size {
    pub(super) now: usize,
    /// What to try once GraphQL answers again.
    next: usize,
    /// Documents in a row that took too long.
    in_vain: u32,
}

/// Documents in a row that take too long before GraphQL is taken to be out of order.
const MANY_IN_VAIN: u32 = 3;

impl Default for Size {
    fn default() -> Self {
        Self { now: FIRST_SIZE, next: FIRST_SIZE, in_vain: 0 }
    }
}

impl Size {
    /// A document of so many aliases took too long. The next one has one alias: either the document was too large, or
    /// nothing is answered, which is `true` here once it is clear.
    pub(super) fn was_too_much(&mut self, aliases: usize) -> bool {
        self.in_vain += 1;
        if aliases > 1 {
            self.next = (aliases / 2).max(1);
        }
        self.now = 1;
        self.in_vain >= MANY_IN_VAIN
    }

    pub(super) fn was_answered(&mut self, aliases: usize, cost: u64) {
        self.now = if self.in_vain > 0 {
            self.next
        } else if cost > MAX_POINTS {
            (aliases * 3 / 4).max(1)
        } else {
            (self.now + (self.now / 4).max(1)).min(MAX_SIZE)
        };
        self.in_vain = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_noticed_within_three_documents_and_a_large_one_is_made_smaller() {
        let mut size = Size::default();
        assert!(!size.was_too_much(size.now) && size.now == 1);
        assert!(!size.was_too_much(1) && size.was_too_much(1));
        let mut size = Size::default();
        let mut sizes = Vec::new();
        // At most six aliases are answered.
        for _ in 0..9 {
            sizes.push(size.now);
            if size.now > 6 { assert!(!size.was_too_much(size.now)) } else { size.was_answered(size.now, 1) }
        }
        assert_eq!(sizes, [50, 1, 25, 1, 12, 1, 6, 7, 1]);
        size.was_answered(40, MAX_POINTS + 1);
        assert!(size.now <= 30);
    }
}
