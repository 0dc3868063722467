//! Matrix products on the `gemm` crate: the only unsafe code of the training wing.

use gemm::Parallelism;

/// A read-only matrix in a slice, with strides in elements.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` values, `row_stride` apart.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || columns <= row_stride && (rows - 1) * row_stride + columns <= values.len());
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transposed view.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `target (+)= left · right`, with `target` in packed rows `row_stride` apart. Overwrites unless
/// `add`.
#[expect(unsafe_code, reason = "the gemm crate takes raw pointers; bounds are checked here")]
pub(super) fn product(target: &mut [f32], row_stride: usize, add: bool, left: Matrix<'_>, right: Matrix<'_>) {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    assert_eq!(k, right.rows, "inner lengths differ");
    assert!(m == 0 || n <= row_stride && (m - 1) * row_stride + n <= target.len());
    // SAFETY: `Matrix::new` checked that every element of `left` and `right` lies in its slice
    // (a transposed view names the same elements), the assertion above does so for `target`, and
    // the borrow checker keeps `target` apart from both.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.as_mut_ptr(),
            1,
            row_stride as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// What one thread makes of one large product on this machine, GFLOP/s: the fastest of a few.
pub fn matrix_product_gflops() -> f64 {
    const SIDE: usize = 512;
    let (left, right) = (vec![0.5; SIDE * SIDE], vec![0.25; SIDE * SIDE]);
    let mut target = vec![0.0; SIDE * SIDE];
    let fastest = (0..20).fold(f64::INFINITY, |fastest, _| {
        let start = std::time::Instant::now();
        let matrix = |values| Matrix::new(values, SIDE, SIDE, SIDE);
        product(&mut target, SIDE, false, matrix(&left), matrix(&right));
        fastest.min(start.elapsed().as_secs_f64())
    });
    2.0 * (SIDE * SIDE * SIDE) as f64 / fastest / 1e9
}
