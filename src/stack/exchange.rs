//! The bundle on its way from and to other places: taken in, and copied out.
//!
//! Knows: what is checked before a bundle comes in or leaves. Does not know: saving (`pack`), which entries may leave
//! (`narrow`).

use std::fs;
use std::path::Path;

use super::narrow::{Narrow, inadmissible};
use super::{LONGEST_PACK, Stack, Wait, held};
use crate::bundle::{Bundle, Totals};
use crate::error::{Error, Result};
use crate::files::{self, Durability};

impl Stack {
    /// Copies the bundle to `output` if `narrow` admits every entry in it. Another process may have saved it since the
    /// caller did, with other rules.
    pub fn export(&self, narrow: &Narrow, output: &Path) -> Result<()> {
        let path = self.bundle_path();
        let bundle = Bundle::open(&path)?
            .ok_or_else(|| Error::usage("there is nothing to pack").hint("store something with `octocache run`"))?;
        let refused = inadmissible(&bundle, narrow)?;
        if !refused.is_empty() {
            let what = format!("{} of the entries in {} may not leave it", refused.len(), path.display());
            return Err(Error::usage(what).hint("pack again while no other process saves"));
        }
        let failed = |cause| Error::io("write", output, cause);
        let parent = output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (mut file, partial) = files::new_partial(parent).map_err(failed)?;
        let copied = bundle.copy_to(&mut file);
        copied.and_then(|()| files::commit(file, &partial, output, Durability::Rename)).map_err(|cause| {
            let _best_effort = fs::remove_file(&partial);
            failed(cause)
        })
    }

    /// Puts a bundle from elsewhere in place, after checking its whole index. Nothing is unpacked.
    pub fn restore(&self, from: &Path) -> Result<Totals> {
        let bundle =
            Bundle::open(from)?.ok_or_else(|| Error::usage(format!("there is no bundle at {}", from.display())))?;
        bundle.check().map_err(|error| error.within(from.display()))?;
        let target = self.bundle_path();
        if fs::canonicalize(from).ok() != fs::canonicalize(&target).ok() || !target.exists() {
            self.put_bundle(&bundle, Durability::Synced)?;
        }
        Ok(bundle.totals())
    }

    /// Puts a bundle from elsewhere in place with no more checks than opening it makes: each look-up makes its own.
    pub fn adopt(&self, from: &Path) -> Result<()> {
        match Bundle::open(from)? {
            Some(bundle) => self.put_bundle(&bundle, Durability::Rename),
            None => Ok(()),
        }
    }

    fn put_bundle(&self, bundle: &Bundle, durability: Durability) -> Result<()> {
        self.prepare()?;
        let Some(_lock) = self.lock(Wait::Within(LONGEST_PACK))? else { return Err(held(&self.dir.join("lock"))) };
        let target = self.bundle_path();
        let failed = |cause| Error::io("write", &target, cause);
        let (mut file, partial) = files::new_partial(&self.dir.join("partial")).map_err(failed)?;
        bundle.copy_to(&mut file).map_err(failed)?;
        files::commit(file, &partial, &target, durability).map_err(failed)?;
        let _absent_is_fine = fs::remove_file(self.bundle.log());
        Ok(())
    }
}
