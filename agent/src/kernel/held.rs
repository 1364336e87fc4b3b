//! What is kept open of the pins: a pin that is removed behind the daemon's back takes nothing with it, and
//! is put back.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use super::error::Error;
use super::load::{Pins, SHAPES};
use super::{guard, sys, watch};

/// What was found changed, and whether it could be put back.
pub(super) type Found = (String, Result<(), Error>);

/// Descriptors of the pinned maps and links, by name.
#[derive(Default)]
pub(super) struct Held {
    maps: Vec<(&'static str, OwnedFd)>,
    links: Vec<(&'static str, OwnedFd)>,
}

/// What the kernel says about an object, as in the fdinfo of a descriptor of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) map: Option<u32>,
    pub(super) link: Option<u32>,
    pub(super) program: Option<u32>,
    /// 0 for a link that was detached or whose cgroup is gone.
    pub(super) cgroup: Option<u64>,
}

impl Info {
    pub(super) fn of(fd: BorrowedFd<'_>) -> Self {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
        text.map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        let id = |name: &str| field(name).and_then(|id| u32::try_from(id).ok());
        Self {
            map: id("map_id"),
            link: id("link_id"),
            program: id("prog_id"),
            cgroup: field("cgroup_id"),
        }
    }
}

impl Held {
    /// Opens every pinned map; those of the guard and the watch where there are any.
    pub(super) fn of_maps(pins: &Pins) -> Result<Self, Error> {
        let maps = SHAPES.iter().map(|(name, ..)| Ok((*name, open(&pins.map(name))?)));
        let mut maps = maps.collect::<Result<Vec<_>, Error>>()?;
        let optional = guard::SHAPES.iter().chain(&watch::SHAPES);
        maps.extend(optional.filter_map(|(name, ..)| Some((*name, open(&pins.map(name)).ok()?))));
        Ok(Self { maps, links: Vec::new() })
    }

    /// Opens the links that are pinned now, instead of those that were open.
    pub(super) fn hold_links(
        &mut self,
        pins: &Pins,
        names: impl Iterator<Item = &'static str>,
    ) -> Result<(), Error> {
        let links = names.map(|name| Ok((name, open(&pins.link(name))?)));
        self.links = links.collect::<Result<_, Error>>()?;
        Ok(())
    }

    pub(super) fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.maps.iter().find(|(n, _)| *n == name).map(|(_, fd)| fd.as_fd())
    }

    pub(super) fn link(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.links.iter().find(|(n, _)| *n == name).map(|(_, fd)| fd.as_fd())
    }

    /// Puts back every pin of a map that is gone or is another map's. Returns what was found.
    pub(super) fn repair_maps(&self, pins: &Pins) -> Vec<Found> {
        let mut found = Vec::new();
        for (name, held) in &self.maps {
            let pin = pins.map(name);
            let pinned = sys::open_pin(&pin).ok().and_then(|fd| Info::of(fd.as_fd()).map);
            if pinned.is_some() && pinned == Info::of(held.as_fd()).map {
                continue;
            }
            let what = if pinned.is_some() { "is another map's" } else { "was removed" };
            found.push((
                format!("the pin of the map {name} {what}"),
                put_back(pins, held.as_fd(), &pin),
            ));
        }
        found
    }
}

/// A link of the guard or the watch, kept open, with what the kernel said of it when it was made.
pub(super) struct Kept {
    link: OwnedFd,
    made: Info,
}

impl Kept {
    /// Opens the link that was just pinned there.
    pub(super) fn of_pin(pin: &Path) -> Result<Self, Error> {
        let link = open(pin)?;
        let made = Info::of(link.as_fd());
        Ok(Self { link, made })
    }

    /// Whether it was detached, or runs another program than when it was made.
    pub(super) fn is_changed(&self) -> bool {
        Info::of(self.link.as_fd()) != self.made
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// Puts the pin of a link back where it is gone or is another link's.
pub(super) fn repair_pin(pins: &Pins, name: &str, link: BorrowedFd<'_>) -> Option<Found> {
    let pin = pins.link(name);
    let pinned = sys::open_pin(&pin).ok().and_then(|fd| Info::of(fd.as_fd()).link);
    if pinned.is_some() && pinned == Info::of(link).link {
        return None;
    }
    let what = if pinned.is_some() { "is another link's" } else { "was removed" };
    Some((format!("the pin of the link {name} {what}"), put_back(pins, link, &pin)))
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |source| Error::Pin { operation: "open", path: path.into(), source };
    sys::open_pin(path).map_err(failed)
}

/// Pins an object again, in directories that may be gone.
fn put_back(pins: &Pins, object: BorrowedFd<'_>, pin: &Path) -> Result<(), Error> {
    pins.make_directories()?;
    let failed = |operation, source| Error::Pin { operation, path: pin.into(), source };
    match fs::remove_file(pin) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove", e)),
        Ok(()) | Err(_) => {}
    }
    sys::pin(object, pin).map_err(|e| failed("pin", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_link_is_told_from_one_that_is_attached() {
        let attached = "pos:\t0\nflags:\t02\nlink_type:\tcgroup\nlink_id:\t41\nprog_tag:\t00aa\n\
                        prog_id:\t77\ncgroup_id:\t4711\nattach_type:\t10\n";
        let info = Info::parse(attached);
        assert_eq!((info.link, info.program, info.cgroup), (Some(41), Some(77), Some(4711)));
        let detached = attached.replace("4711", "0");
        assert_eq!(Info::parse(&detached).cgroup, Some(0));
        assert_eq!(Info::parse("map_type:\t1\nmap_id:\t9\n").map, Some(9));
    }
}
