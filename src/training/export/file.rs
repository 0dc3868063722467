//! Files in one piece: read within a limit, written under a temporary name, synced and renamed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::{ExportError, io};

/// The most bytes of a model or weight file that are read; protobuf itself ends at 2 GiB.
const MAX_BYTES: u64 = 1 << 31;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, ExportError> {
    let file = File::open(path).map_err(io(path, "open it"))?;
    let bytes = file.metadata().map_err(io(path, "see its size"))?.len();
    if bytes > MAX_BYTES {
        return Err(ExportError::TooLarge { path: path.to_owned(), bytes, limit: MAX_BYTES });
    }
    let mut content = Vec::with_capacity(bytes as usize);
    // The limit holds for what has no size of its own too, such as a pipe.
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(io(path, "read it"))?;
    Ok(content)
}

pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), ExportError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What any new file gets, less the umask: a temporary file would else stay its owner's alone.
    let permissions = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new()
        .prefix(".linegate-")
        .permissions(permissions)
        .tempfile_in(folder)
        .map_err(io(path, "write it (its folder must exist and be writable)"))?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(io(path, "write it"))?;
    file.persist(path).map_err(|error| io(path, "put it in place")(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder, "sync it"))
}
