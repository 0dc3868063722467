//! Signed bundles: Ed25519 (RFC 8032) over the digest of the manifest, which holds those of all files.
//!
//! Keys and signatures are files of one line, hexadecimal.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::Bundle;

/// Name of the signature inside a bundle.
pub const SIGNATURE_FILE: &str = "manifest.sig";
/// Signed before the digest, so that a signature means a bundle and nothing else.
const PURPOSE: &str = "linegate bundle manifest sha256 ";

/// Why a bundle cannot be signed or its signature is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A key or signature cannot be read or written.
    #[error("{path} cannot be {action}: check that it is there and may be")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Cause.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what}: {bytes} bytes as hexadecimal digits on one line are needed")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// There is no signature.
    #[error("bundle {path} is not signed: sign it with `linegate models sign`, or remove `model.public_key_file`")]
    Unsigned {
        /// The bundle.
        path: PathBuf,
    },
    /// The signature is of another bundle or another key.
    #[error("bundle {path} is not signed with the key that this line trusts, or was changed after it was")]
    Refused {
        /// The bundle.
        path: PathBuf,
    },
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> SignatureError {
    let path = path.to_owned();
    move |source| SignatureError::Io { path, action, source }
}

/// Makes a pair of keys. The private one is readable by its owner alone; neither replaces a file.
///
/// # Errors
/// A file is there already or cannot be written.
pub fn make_keys(private: &Path, public: &Path) -> Result<(), SignatureError> {
    use std::os::unix::fs::OpenOptionsExt;
    let key = SigningKey::from_bytes(&rand::random());
    let write = |path: &Path, mode: u32, bytes: &[u8]| {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(path);
        file.and_then(|mut file| writeln!(file, "{}", super::store::hex(bytes))).map_err(io(path, "written"))
    };
    write(public, 0o644, key.verifying_key().as_bytes())?;
    write(private, 0o600, key.as_bytes())
}

/// Signs a verified bundle with the private key in a file.
///
/// # Errors
/// The key cannot be read or the signature not be written.
pub fn sign(bundle: &Bundle, private: &Path) -> Result<(), SignatureError> {
    let key = SigningKey::from_bytes(&read_hex(private, "private key")?);
    let signature = key.sign(message(bundle).as_bytes());
    let path = bundle.path.join(SIGNATURE_FILE);
    let mut staged = tempfile::NamedTempFile::new_in(&bundle.path).map_err(io(&path, "written"))?;
    writeln!(staged, "{}", super::store::hex(&signature.to_bytes()))
        .and_then(|()| staged.as_file().sync_all())
        .map_err(io(&path, "written"))?;
    // A temporary file is for its owner alone; the line may run as another user.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    staged.as_file().set_permissions(readable).map_err(io(&path, "written"))?;
    staged.persist(&path).map_err(|error| io(&path, "written")(error.error))?;
    Ok(())
}

/// Checks a bundle's signature against the public key in a file.
///
/// # Errors
/// There is no signature, it does not fit, or the key cannot be read.
pub fn verify(bundle: &Bundle, public: &Path) -> Result<(), SignatureError> {
    let malformed = || SignatureError::Malformed { path: public.to_owned(), what: "public key", bytes: 32 };
    let key = VerifyingKey::from_bytes(&read_hex(public, "public key")?).map_err(|_| malformed())?;
    let file = bundle.path.join(SIGNATURE_FILE);
    if !file.exists() {
        return Err(SignatureError::Unsigned { path: bundle.path.clone() });
    }
    let signature = Signature::from_bytes(&read_hex(&file, "signature")?);
    key.verify_strict(message(bundle).as_bytes(), &signature)
        .map_err(|_| SignatureError::Refused { path: bundle.path.clone() })
}

fn message(bundle: &Bundle) -> String {
    format!("{PURPOSE}{}", bundle.identity.sha256)
}

fn read_hex<const N: usize>(path: &Path, what: &'static str) -> Result<[u8; N], SignatureError> {
    let text = fs::read_to_string(path).map_err(io(path, "read"))?;
    let digits = text.trim().as_bytes();
    let malformed = || SignatureError::Malformed { path: path.to_owned(), what, bytes: N };
    if digits.len() != 2 * N {
        return Err(malformed());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
    }
    Ok(bytes)
}
