//! Paths in the image.

use super::tree::{Content, Metadata, ROOT, Tree};
use crate::{error::Error, format::NAME_MAX};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// How many symbolic links are followed on the way to a directory; Linux follows as many.
const MAX_LINKS: u32 = 40;

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
    let mut pending: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
    let mut at = ROOT;
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == b".." {
            if let Content::Directory { entry, .. } = tree.inodes[at as usize].content
                && let Some(entry) = tree.entries.get(entry as usize)
            {
                at = entry.parent;
            }
            continue;
        }
        let Some(entry) = tree.find(at, &name) else {
            if name.len() > NAME_MAX {
                return Err(refuse("a symbolic link on the way has a name of over 255 bytes"));
            }
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
                let target = tree.text(target);
                if target.starts_with(b"/") {
                    at = ROOT;
                }
                let parts = target.split(|&byte| byte == b'/').rev();
                pending.extend(parts.filter(|part| !matches!(**part, [] | [b'.'])).map(<[u8]>::to_vec));
            }
            _ => return Err(refuse("there is a file that is no directory on the way to it")),
        }
    }
    Ok(at)
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
