//! What can be wrong with a data set.

use std::io;
use std::path::PathBuf;

use crate::inspection::Size;

/// What can be wrong with a data set. Each names the file or folder and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The root is not there or is no folder.
    #[error("there is no data set folder {}: give the folder that holds train/ and test/", .0.display())]
    NoSuchFolder(PathBuf),
    /// Neither of the two folders of the layout is there.
    #[error(
        "{} holds neither train/ nor test/: arrange it as train/good, test/good, test/DEFECT and ground_truth/DEFECT",
        .0.display()
    )]
    NotALayout(PathBuf),
    /// Training needs normal pictures.
    #[error("{} is missing or holds no picture: put normal pictures there", .0.display())]
    NoTrainGood(PathBuf),
    /// Folders, but no picture.
    #[error("{} holds no picture under train/ or test/: add png, jpeg, bmp or tiff files", .0.display())]
    NoPictures(PathBuf),
    /// More files than a data set may have.
    #[error("{} holds more than {limit} files: split the data set", .folder.display())]
    TooManyFiles {
        /// The folder.
        folder: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// The system refused.
    #[error("cannot read {}: check that it exists and may be read", .path.display())]
    Unreadable {
        /// File or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that cannot be written into reports and manifests.
    #[error("the name {} is not UTF-8: rename it", .0.display())]
    Name(PathBuf),
    /// A file of no bytes.
    #[error("{} is empty (0 bytes): take it out or copy it again", .0.display())]
    EmptyFile(PathBuf),
    /// A file where only pictures belong.
    #[error("{} is not a png, jpeg, bmp or tiff: convert it or take it out", .0.display())]
    UnsupportedKind(PathBuf),
    /// A folder where only pictures belong.
    #[error("{} is a folder where only pictures are read: move its pictures up or take it out", .0.display())]
    UnexpectedFolder(PathBuf),
    /// A picture outside the folders of the layout.
    #[error("{} lies beside the folders good and DEFECT: move it into one of them", .0.display())]
    StrayPicture(PathBuf),
    /// The bytes are not a whole picture.
    #[error("cannot decode {}: take it out or copy it again", .path.display())]
    Undecodable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: image::ImageError,
    },
    /// The picture's end is missing.
    #[error("{} is torn, its end is missing ({bytes} bytes are there): copy it again", .path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// Bytes that are there.
        bytes: usize,
    },
    /// Pixels of a kind that is not read.
    #[error("{} has floating-point pixels: convert it to 8 or 16 bits", .0.display())]
    FloatingPoint(PathBuf),
    /// A file of too many bytes.
    #[error("{} has {bytes} bytes, more than the limit of {limit}: scale it down", .path.display())]
    TooManyBytes {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A picture of too many pixels.
    #[error(
        "{} is {width}x{height} pixels, over the limit of {side} a side or {pixels} in all: scale it down",
        .path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// Pixels a side at most.
        side: u32,
        /// Pixels at most.
        pixels: u64,
    },
    /// A mask and no picture.
    #[error("the mask {} has no picture in {}: add the picture or take the mask out", .mask.display(), .looked_in.display())]
    MaskWithoutPicture {
        /// The mask.
        mask: PathBuf,
        /// Where its picture was looked for.
        looked_in: PathBuf,
    },
    /// Two pictures, one mask.
    #[error(
        "{} and {} would share the mask {}: rename one of the pictures and give each its own mask",
        .first.display(), .second.display(), .mask.display()
    )]
    SharedMask {
        /// The mask.
        mask: PathBuf,
        /// One picture.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// One picture, two masks.
    #[error("{} and {} both name the mask of {}: keep one", .first.display(), .second.display(), .picture.display())]
    TwoMasks {
        /// The picture.
        picture: PathBuf,
        /// One mask.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A mask that does not cover its picture.
    #[error("the mask {} is {found} pixels, its picture is {expected}: draw it at the picture's size", .mask.display())]
    MaskSize {
        /// The mask.
        mask: PathBuf,
        /// The picture's size.
        expected: Size,
        /// The mask's size.
        found: Size,
    },
    /// A groups file that cannot be understood.
    #[error("{} line {line}: {problem}", .path.display())]
    Groups {
        /// The groups file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// A picture that the groups file forgets.
    #[error("{} does not name {name}: add the line \"{name},GROUP\"", .groups.display())]
    NotGrouped {
        /// The groups file.
        groups: PathBuf,
        /// The picture's name in the data set.
        name: String,
    },
    /// More known defects wanted than there are.
    #[error("{asked} known defects were asked for, but there are {available} ({by_type}): ask for at most {available}")]
    TooFewDefects {
        /// Asked for.
        asked: usize,
        /// There are.
        available: usize,
        /// How many of each type.
        by_type: String,
    },
    /// A defect type that the set does not have.
    #[error("there is no defect type `{wanted}` here; there are: {there}")]
    UnknownType {
        /// Asked for.
        wanted: String,
        /// The types there are.
        there: String,
    },
    /// Too little to train and calibrate.
    #[error(
        "{normals} normal pictures in {groups} group(s) cannot be split into training and calibration of at least \
         {minimum} each: add normal pictures to train/good"
    )]
    TooFewNormals {
        /// Normal pictures there are.
        normals: usize,
        /// Groups they come from; a group is never split.
        groups: usize,
        /// Least pictures on either side.
        minimum: usize,
    },
    /// Too few normals that the flows do not know.
    #[error(
        "only {available} normal pictures are new to the bundle to start from or were held out by it (told by name),          calibration needs {minimum}: add normal pictures to train/good, or train afresh, without --from"
    )]
    TooFewUnfitted {
        /// Such pictures.
        available: usize,
        /// Least number.
        minimum: usize,
    },
    /// A share outside of its range.
    #[error("the held-out share {0} must lie above 0 and below 1")]
    Fraction(f64),
}

impl DatasetError {
    pub(super) fn unreadable(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Unreadable { path, source }
    }
}
