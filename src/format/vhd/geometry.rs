//! Cylinders, heads and sectors of a disk; VHD, "Appendix: CHS Calculation".

/// What old guests see. Their product may be less than the disk has: the size of the disk is a field of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub cylinders: u16,
    pub heads: u8,
    pub sectors: u8,
}

impl Geometry {
    pub fn of(sectors: u64) -> Geometry {
        let total = sectors.min(65535 * 16 * 255);
        if total >= 65535 * 16 * 63 {
            return Geometry::new(total / 255, 16, 255);
        }
        let rows = total / 17;
        let heads = rows.div_ceil(1024).max(4);
        if rows < heads * 1024 && heads <= 16 {
            return Geometry::new(rows, heads, 17);
        }
        let rows = total / 31;
        if rows < 16 * 1024 {
            return Geometry::new(rows, 16, 31);
        }
        Geometry::new(total / 63, 16, 63)
    }

    /// `rows` is cylinders times heads. The casts hold: the largest disk has 65535 cylinders.
    fn new(rows: u64, heads: u64, sectors: u8) -> Geometry {
        Geometry { cylinders: (rows / heads) as u16, heads: heads as u8, sectors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small, middle, large, and either side of each change of rule.
    #[test]
    fn follows_the_appendix() {
        let of = |sectors| {
            let found = Geometry::of(sectors);
            (found.cylinders, found.heads, found.sectors)
        };
        assert_eq!(of(0), (0, 4, 17));
        assert_eq!(of(20_480), (301, 4, 17));
        assert_eq!(of(17 * 16 * 1024 - 1), (1023, 16, 17));
        assert_eq!(of(17 * 16 * 1024), (561, 16, 31));
        assert_eq!(of(31 * 16 * 1024 - 1), (1023, 16, 31));
        assert_eq!(of(31 * 16 * 1024), (503, 16, 63));
        // 19 GiB
        assert_eq!(of(39_845_888), (39_529, 16, 63));
        assert_eq!(of(65535 * 16 * 63 - 1), (65534, 16, 63));
        assert_eq!(of(65535 * 16 * 63), (16191, 16, 255));
        assert_eq!(of(u64::MAX), (65535, 16, 255));
    }
}
