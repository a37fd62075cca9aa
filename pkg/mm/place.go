package mm

import (
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"

	"sentrymm/pkg/vmatree"
)

const (
	// guardGap is how far new mappings that are not MAP_FIXED stay below one that
	// grows down (Linux: stack_guard_gap).
	guardGap = 256 * hostarch.PageSize

	// low32Start and low32End bound where MAP_32BIT puts mappings.
	low32Start = 0x40000000
	low32End   = 0x80000000
)

// place chooses the range of the mapping that opts ask for.
//
// Preconditions: mappingMu is locked. opts passed checkMMapOpts.
func (mm *MemoryManager) place(opts *memmap.MMapOpts) (hostarch.AddrRange, error) {
	bounds := mm.userRange()
	if opts.Map32Bit && !opts.Fixed {
		bounds = bounds.Intersect(hostarch.AddrRange{Start: low32Start, End: low32End})
	}
	if ar, ok := opts.Addr.ToRange(opts.Length); ok {
		switch {
		case opts.Force && opts.Fixed && opts.Unmap:
			return ar, nil
		case bounds.IsSupersetOf(ar):
			if done, err := mm.placeAt(ar, opts); done {
				return ar, err
			}
		case opts.Fixed && ar.End <= bounds.End:
			return hostarch.AddrRange{}, linuxerr.EPERM // too low (Linux: cap_mmap_addr)
		}
	}
	if opts.Fixed {
		return hostarch.AddrRange{}, linuxerr.ENOMEM
	}

	// Where huge pages could be used, leave them whole.
	align := hostarch.Addr(hostarch.PageSize)
	if opts.Private && !opts.GrowsDown && !opts.Stack && hostarch.IsHugePageAligned(opts.Length) {
		align = hostarch.HugePageSize
	}
	root, length := mm.vmas.Peek(), hostarch.Addr(opts.Length)
	switch {
	case opts.Map32Bit:
		return placeLow(root, length, align, bounds)
	case mm.layout.DefaultDirection == arch.MmapBottomUp:
		return placeLow(root, length, align, hostarch.AddrRange{Start: mm.layout.BottomUpBase, End: bounds.End})
	}
	ar, err := placeHigh(root, length, align, hostarch.AddrRange{Start: bounds.Start, End: mm.layout.TopDownBase})
	if err != nil {
		// Better high than not at all (Linux: arch_get_unmapped_area_topdown).
		ar, err = placeLow(root, length, align, hostarch.AddrRange{Start: mm.layout.BottomUpBase, End: bounds.End})
	}
	return ar, err
}

// placeAt returns whether ar, where the mapping should preferably or must lie,
// decides the matter.
//
// Preconditions: mappingMu is locked.
func (mm *MemoryManager) placeAt(ar hostarch.AddrRange, opts *memmap.MMapOpts) (bool, error) {
	if opts.Unmap {
		return true, nil
	}
	c := mm.vmas.Peek().LowerBound(uint64(ar.Start))
	if opts.NoReplace {
		// Guard gaps do not matter to it, as they do not to MAP_FIXED.
		if c.Valid() && c.Range().Start < uint64(ar.End) {
			return true, linuxerr.EEXIST
		}
		return true, nil
	}
	return !c.Valid() || ar.End <= usableEnd(c), nil
}

// usableEnd returns the end of what new mappings may use of the gap below the
// vma at c.
func usableEnd(c vmatree.Cursor[*vma]) hostarch.Addr {
	start := hostarch.Addr(c.Range().Start)
	if !c.Value().growsDown {
		return start
	}
	return start - min(start, guardGap)
}

// usable returns the part of gap that new mappings may use.
func usable(root vmaSnapshot, gap vmatree.Range) hostarch.AddrRange {
	ar := addrRange(gap)
	if c := root.LowerBound(gap.End); c.Valid() {
		ar.End = max(ar.Start, min(ar.End, usableEnd(c)))
	}
	return ar
}

// placeLow returns the lowest place within bounds.
func placeLow(root vmaSnapshot, length, align hostarch.Addr, bounds hostarch.AddrRange) (hostarch.AddrRange, error) {
	for bounds.Start < bounds.End {
		gap, ok := root.FirstGap(treeRange(bounds), uint64(length))
		if !ok {
			break
		}
		if ar := usable(root, gap); ar.Length() >= length {
			start := ar.Start
			if up := (start + align - 1) &^ (align - 1); up >= start && up <= ar.End-length {
				start = up
			}
			return hostarch.AddrRange{Start: start, End: start + length}, nil
		}
		bounds.Start = hostarch.Addr(gap.End)
	}
	return hostarch.AddrRange{}, linuxerr.ENOMEM
}

// placeHigh returns the highest place within bounds.
func placeHigh(root vmaSnapshot, length, align hostarch.Addr, bounds hostarch.AddrRange) (hostarch.AddrRange, error) {
	for bounds.Start < bounds.End {
		gap, ok := root.LastGap(treeRange(bounds), uint64(length))
		if !ok {
			break
		}
		if ar := usable(root, gap); ar.Length() >= length {
			start := ar.End - length
			if down := start &^ (align - 1); down >= ar.Start {
				start = down
			}
			return hostarch.AddrRange{Start: start, End: start + length}, nil
		}
		bounds.End = hostarch.Addr(gap.Start)
	}
	return hostarch.AddrRange{}, linuxerr.ENOMEM
}
