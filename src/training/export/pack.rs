//! A convolution of few channels written as one of more: pixels that lie beside each other as channels.
//!
//! ONNX Runtime multiplies integers straight from the picture only where their channels come in fours;
//! those of an image, three, it first copies together window by window, which takes longer than the
//! convolution. Four pixels of a row lie in memory as one of four times the channels does. A
//! convolution of these says what the original says of the group's pixels, each as channels of its
//! own: the same products, and zeros.

use super::graph::{GraphBuilder, integers_attribute};
use super::onnx::{AttributeProto, NodeProto};

/// Pixels of a row that are one group.
pub(super) const GROUP: usize = 4;
/// Widest kernel: with a wider one there are more zeros than the copying costs.
const WIDEST: usize = 3;

/// How a convolution is written with groups for pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    /// Channels before, of a pixel.
    channels: usize,
    /// Channels after, of a pixel.
    outputs: usize,
    rows: usize,
    columns: usize,
    /// Strides of rows and columns.
    strides: [usize; 2],
    /// Padding above, on the left, below.
    padding: [usize; 3],
}

impl Packed {
    /// Of a convolution with weights of `dims` (outputs, channels, rows, columns), for pictures whose width
    /// [`GROUP`] divides; none where channels come in fours already or it has a form that is not packed.
    pub(super) fn of(node: &NodeProto, dims: &[usize]) -> Option<Self> {
        let &[outputs, channels, rows, columns] = dims else { return None };
        let named = |name: &str| node.attribute.iter().find(|attribute| attribute.name() == name);
        let lengths = |name: &str, default: &[usize]| match named(name) {
            Some(AttributeProto { ints, .. }) => {
                ints.iter().map(|&length| u16::try_from(length).ok().map(usize::from)).collect()
            }
            None => Some(default.to_vec()),
        };
        let &[down, right] = &lengths("strides", &[1, 1])?[..] else { return None };
        let &[above, left, below, after] = &lengths("pads", &[0; 4])?[..] else { return None };
        let plain = named("auto_pad").is_none_or(|padding| padding.s() == b"NOTSET")
            && named("group").is_none_or(|groups| groups.i() == 1)
            && lengths("dilations", &[1, 1])? == [1, 1];
        // A row then has as many groups after as before, for it ends where the stride's last window does.
        let whole_rows = columns <= right + left + after && left + after < columns;
        let fits = plain && whole_rows && columns <= WIDEST && matches!(right, 1 | 2 | GROUP) && down > 0;
        (fits && !channels.is_multiple_of(GROUP)).then_some(Self {
            channels,
            outputs,
            rows,
            columns,
            strides: [down, right],
            padding: [above, left, below],
        })
    }

    /// Pixels after that are one group.
    fn group_after(&self) -> usize {
        GROUP / self.strides[1]
    }

    /// Groups that a window reaches to the left and in all.
    fn reach(&self) -> (usize, usize) {
        let left = self.padding[1].div_ceil(GROUP);
        let last = self.strides[1] * (self.group_after() - 1) + self.columns - 1;
        (left, left + (last - self.padding[1]) / GROUP + 1)
    }

    /// The weights and their shape, of `weights` in row-major order.
    pub(super) fn weights<W: Copy + Default>(&self, weights: &[W]) -> ([usize; 4], Vec<W>) {
        let &Self { channels, outputs, rows, columns, strides: [_, right], padding: [_, left, _] } = self;
        let (groups_left, groups) = self.reach();
        let dims = [self.group_after() * outputs, GROUP * channels, rows, groups];
        let mut packed = vec![W::default(); dims.iter().product()];
        for pixel in 0..self.group_after() {
            for (at, &weight) in weights.iter().take(outputs * channels * rows * columns).enumerate() {
                let [output, channel, row, column] =
                    [at / columns / rows / channels, at / columns / rows % channels, at / columns % rows, at % columns];
                // Counted from the first pixel that a window reaches.
                let from = GROUP * groups_left + right * pixel + column - left;
                let [to, of] = [pixel * outputs + output, from % GROUP * channels + channel];
                packed[((to * dims[1] + of) * rows + row) * groups + from / GROUP] = weight;
            }
        }
        (dims, packed)
    }

    /// What there is one of for each channel after.
    pub(super) fn each<T: Copy>(&self, of_pixel: &[T]) -> Vec<T> {
        of_pixel.repeat(self.group_after())
    }

    /// The convolution's attributes.
    pub(super) fn attributes(&self) -> Vec<AttributeProto> {
        let (left, groups) = self.reach();
        let [above, _, below] = self.padding;
        let whole = |lengths: &[usize]| lengths.iter().map(|&length| length as i64).collect::<Vec<_>>();
        vec![
            integers_attribute("kernel_shape", &whole(&[self.rows, groups])),
            integers_attribute("pads", &whole(&[above, left, below, groups - 1 - left])),
            integers_attribute("strides", &whole(&[self.strides[0], 1])),
        ]
    }

    /// Adds nodes that take a picture `from` (batch, channels, rows, columns) to groups; their output's name.
    pub(super) fn gather(&self, graph: &mut GraphBuilder, from: &str) -> String {
        regroup(graph, from, &format!("{from}/groups"), GROUP * self.channels)
    }

    /// Adds nodes that make pixels called `to` of the groups `from`.
    pub(super) fn spread(&self, graph: &mut GraphBuilder, from: &str, to: &str) {
        regroup(graph, from, to, self.outputs);
    }
}

/// Gives a map other `channels`, as they lie in memory with channels last; its rows become as much shorter
/// or longer. What moves the channels ONNX Runtime takes away again: integers it has with channels last.
fn regroup(graph: &mut GraphBuilder, from: &str, to: &str, channels: usize) -> String {
    let order = |axes: [i64; 4]| vec![integers_attribute("perm", &axes)];
    let shape = graph.integers(&format!("{to}/shape"), &[0, 0, -1, channels as i64]);
    let last = graph.node("Transpose", &[from], &format!("{to}/channels_last"), order([0, 2, 3, 1]));
    let regrouped = graph.node("Reshape", &[&last, &shape], &format!("{to}/regrouped"), vec![]);
    graph.node("Transpose", &[&regrouped], to, order([0, 3, 1, 2]))
}

#[cfg(test)]
mod tests {
    use super::super::graph::integer_attribute;
    use super::*;

    /// One channel after by one before of a row, `[length][channels]`, with `left` zeros before it.
    fn convolved(
        row: &[Vec<i32>],
        (weights, dims): (&[i32], [usize; 4]),
        stride: usize,
        left: usize,
        length: usize,
    ) -> Vec<Vec<i32>> {
        let [outputs, channels, rows, columns] = dims;
        assert_eq!(rows, 1);
        let said = |place: usize, output: usize| {
            let taps = (0..columns).flat_map(|column| (0..channels).map(move |channel| (column, channel)));
            let product = |(column, channel): (usize, usize)| {
                let at = (stride * place + column).checked_sub(left).and_then(|at| row.get(at));
                at.map_or(0, |pixel| pixel[channel] * weights[(output * channels + channel) * columns + column])
            };
            taps.map(product).sum()
        };
        (0..length).map(|place| (0..outputs).map(|output| said(place, output)).collect()).collect()
    }

    fn convolution(attributes: &[(&str, &[i64])]) -> NodeProto {
        let attribute = attributes.iter().map(|&(name, values)| integers_attribute(name, values)).collect();
        NodeProto { op_type: Some("Conv".into()), attribute, ..Default::default() }
    }

    #[test]
    fn groups_say_what_pixels_say() {
        for (columns, stride, [left, right]) in [
            (3, 2, [0, 1]),
            (3, 2, [1, 1]),
            (3, 2, [1, 0]),
            (3, 1, [1, 1]),
            (3, 1, [2, 0]),
            (2, 1, [0, 1]),
            (1, 1, [0, 0]),
            (2, 2, [0, 0]),
            (3, 4, [0, 0]),
        ] {
            let dims = [2, 3, 1, columns];
            let node = convolution(&[("strides", &[1, stride as i64]), ("pads", &[0, left as i64, 0, right as i64])]);
            let weights: Vec<i32> = (0..2 * 3 * columns as i32).map(|at| at * 7 % 11 - 5).collect();
            let row: Vec<Vec<i32>> =
                (0..16).map(|at| (0..3).map(|channel| (at * 5 + channel * 3) % 13).collect()).collect();
            let packed = Packed::of(&node, &dims).unwrap_or_else(|| panic!("{columns} columns by {stride}"));
            let (to, wide) = packed.weights(&weights);
            let (groups_left, groups) = packed.reach();
            assert_eq!((to[2], to[3]), (1, groups));
            let grouped: Vec<Vec<i32>> = row.chunks(GROUP).map(<[Vec<i32>]>::concat).collect();
            let pixels = convolved(&row, (&weights, dims), stride, left, row.len() / stride);
            let of_groups = convolved(&grouped, (&wide, to), 1, groups_left, grouped.len());
            assert_eq!(of_groups.concat(), pixels.concat(), "{columns} columns by {stride} after {left}");
        }
    }

    #[test]
    fn what_has_another_form_stays_as_it_is() {
        let dims = [32, 3, 3, 3];
        let stem: [(&str, &[i64]); 2] = [("strides", &[2, 2]), ("pads", &[0, 0, 1, 1])];
        assert!(Packed::of(&convolution(&stem), &dims).is_some());
        assert_eq!(Packed::of(&convolution(&stem), &[32, 4, 3, 3]), None, "channels in fours");
        assert_eq!(Packed::of(&convolution(&stem), &[64, 3, 7, 7]), None, "wide");
        for other in [
            ("strides", &[3, 3][..]),
            ("strides", &[0, 0]),
            ("dilations", &[2, 2]),
            ("pads", &[0; 4]),
            ("pads", &[-1; 4]),
        ] {
            let attributes: Vec<_> = stem.iter().copied().filter(|(name, _)| *name != other.0).chain([other]).collect();
            assert_eq!(Packed::of(&convolution(&attributes), &dims), None, "{other:?}");
        }
        let mut grouped = convolution(&stem);
        grouped.attribute.push(integer_attribute("group", 3));
        assert_eq!(Packed::of(&grouped, &dims), None, "groups");
    }
}
