//! Paths in the image.

use super::{
    text::Text,
    tree::{Content, Metadata, ROOT, Tree},
};
use crate::{error::Error, format::NAME_MAX};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// How many symbolic links are followed on the way to a directory; Linux follows as many.
const MAX_LINKS: u32 = 40;
/// How many names their targets may have, all together: that bounds the work for a path.
const MAX_STEPS: usize = 8192;

/// The names in a path. It may be absolute or not; all are taken from the root.
pub fn names(path: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let refuse = |why| Error::Entry { path: Path::new(OsStr::from_bytes(path)).to_owned(), why };
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(refuse("its path has '..' in it")),
            _ if name.len() > NAME_MAX => return Err(refuse("a name in its path has over 255 bytes")),
            _ if name.contains(&0) => return Err(refuse("its path has a NUL in it")),
            _ => names.push(name),
        }
    }
    Ok(names)
}

/// The directory of these names in the image. Symbolic links of the image are followed, within it; what is missing is
/// made, with `implied`.
pub fn directory(tree: &mut Tree, names: &[&[u8]], implied: &Metadata) -> Result<u32, Error> {
    let refuse = |why| {
        let path = names.join(&b'/');
        Error::Entry { path: Path::new("/").join(OsStr::from_bytes(&path)), why }
    };
    // What is left to go: names of the path, and of the targets of links, the next last.
    let mut pending = vec![Pending::Names(names)];
    let mut at = ROOT;
    let (mut links, mut steps) = (0, 0);
    while let Some(rest) = pending.last_mut() {
        let link_name;
        let name = match rest {
            Pending::Names([name, more @ ..]) => {
                let name = *name;
                *rest = Pending::Names(more);
                name
            }
            Pending::Target(target) if target.length > 0 => {
                link_name = next_name(tree, target);
                link_name.of(&tree.names)
            }
            _ => {
                pending.pop();
                continue;
            }
        };
        steps += 1;
        if steps > names.len() + MAX_STEPS {
            return Err(refuse("the symbolic links on the way to it are too long"));
        }
        match name {
            b"" | b"." => continue,
            b".." => {
                if let Content::Directory { entry, .. } = tree.inodes[at as usize].content
                    && let Some(entry) = tree.entries.get(entry as usize)
                {
                    at = entry.parent;
                }
                continue;
            }
            _ => {}
        }
        let Some(entry) = tree.find(at, name) else {
            if name.len() > NAME_MAX {
                return Err(refuse("a symbolic link on the way has a name of over 255 bytes"));
            }
            let name = name.to_vec();
            at = tree.put_directory(at, &name, implied)?;
            continue;
        };
        let inode = tree.entries[entry as usize].inode;
        match tree.inodes[inode as usize].content {
            Content::Directory { .. } => at = inode,
            Content::Symlink(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refuse("there are too many symbolic links on the way to it"));
                }
                if tree.text(target).starts_with(b"/") {
                    at = ROOT;
                }
                pending.push(Pending::Target(target));
            }
            _ => return Err(refuse("there is a file that is no directory on the way to it")),
        }
    }
    Ok(at)
}

/// Names that are still to be followed.
enum Pending<'a> {
    Names(&'a [&'a [u8]]),
    /// Of the target of a symbolic link.
    Target(Text),
}

/// Takes the first name, which may be empty, off the target of a link.
fn next_name(tree: &Tree, target: &mut Text) -> Text {
    let bytes = tree.text(*target);
    let length = bytes.iter().position(|&byte| byte == b'/').unwrap_or(bytes.len());
    // Both are at most the target's length.
    let narrow = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
    let name = Text { start: target.start, length: narrow(length) };
    let taken = narrow((length + 1).min(bytes.len()));
    *target = Text { start: target.start + u32::from(taken), length: target.length - taken };
    name
}

/// The directory and the name of a path; nothing for the root.
pub fn place<'a>(
    tree: &mut Tree,
    path: &'a [u8],
    implied: &Metadata,
) -> Result<Option<(u32, &'a [u8])>, Error> {
    let names = names(path)?;
    let Some((last, parents)) = names.split_last() else { return Ok(None) };
    Ok(Some((directory(tree, parents, implied)?, last)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{format::Timestamp, format::rock_ridge as rr};

    const IMPLIED: Metadata = Metadata::implied(0o755, Timestamp { seconds: 0, nanoseconds: 0 });

    fn link(tree: &mut Tree, name: &[u8], target: &[u8]) {
        let target = tree.intern(target).unwrap();
        let inode = tree.add_inode(rr::S_IFLNK, &IMPLIED, Content::Symlink(target)).unwrap();
        tree.put(ROOT, name, inode).unwrap();
    }

    #[test]
    fn links_are_followed_within_the_image() {
        let mut tree = Tree::new(IMPLIED);
        let usr = directory(&mut tree, &[b"usr", b"lib"], &IMPLIED).unwrap();
        link(&mut tree, b"lib", b"usr/lib");
        link(&mut tree, b"up", b"/../../usr/./lib/../lib");
        assert_eq!(directory(&mut tree, &[b"lib"], &IMPLIED).unwrap(), usr);
        assert_eq!(directory(&mut tree, &[b"up"], &IMPLIED).unwrap(), usr);
        assert_eq!(place(&mut tree, b"./lib/x", &IMPLIED).unwrap(), Some((usr, &b"x"[..])));
        assert_eq!(place(&mut tree, b"/", &IMPLIED).unwrap(), None);
    }

    #[test]
    fn loops_and_files_on_the_way_are_refused() {
        let mut tree = Tree::new(IMPLIED);
        link(&mut tree, b"a", b"b");
        link(&mut tree, b"b", b"a");
        assert!(directory(&mut tree, &[b"a", b"x"], &IMPLIED).is_err());
        let fifo = tree.add_inode(rr::S_IFIFO, &IMPLIED, Content::Fifo).unwrap();
        tree.put(ROOT, b"fifo", fifo).unwrap();
        assert!(directory(&mut tree, &[b"fifo"], &IMPLIED).is_err());
        assert!(names(b"a/../b").is_err());
    }
}
