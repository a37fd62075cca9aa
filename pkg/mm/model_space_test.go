package mm

import (
	"slices"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// A plain model of address spaces, written from what Linux documents and not from
// the MemoryManager: an array of cells, each of which knows what is mapped there
// and what an application must read from it. Nothing in it is shared, split, merged
// or lazy. model_ops_test.go has the system calls, model_compare_test.go what
// must agree with a MemoryManager, and model_drive_test.go runs both.
//
// A cell is some number of pages, the same for all cells of a world, so that
// small models reach both single pages and operations of many steps. Contents are
// modelled in its slots: the first four bytes of its first and of its last page.

const (
	// modelCells is how many cells an address space has: all that the layout allows.
	modelCells = 64

	// modelFileCells is the largest file.
	modelFileCells = 24

	// modelSlots is the most slots of a cell.
	modelSlots = 2
)

// modelAttrs is what neighbouring cells have in common if they are one mapping.
type modelAttrs struct {
	file         *modelFile // nil for anonymous memory
	alias        int        // which of the file's names
	private      bool
	perms, max   hostarch.AccessType
	lock         memmap.MLockMode
	grows, stack bool
	dontfork     bool
	name         string
	nameMut      memmap.NameMut
	numa         linux.NumaPolicy
	nodes        uint64
}

// modelCell is a cell of an address space.
type modelCell struct {
	mapped bool
	modelAttrs
	off   int // in the file, in cells
	slots [modelSlots]modelSlot
}

// modelSlot is what private memory holds. Shared memory's is in the file.
type modelSlot struct {
	// own is set if it is known that the memory is not the file's any more (or
	// never was), and holds val.
	own bool
	val uint32

	// cands is what the memory may hold if it is not known to be its own: what the
	// file holds, or has held since the mapping was made. Linux leaves open which,
	// and copies are made of more pages than were written to.
	cands []uint32

	// pins are the pins that hold this very page.
	pins []int
}

// modelFile is a file, and its names.
type modelFile struct {
	set  *sharedSet
	maps []*testMappable
	size int // in cells
	vals [modelFileCells][modelSlots]uint32
}

// modelSpace is an address space.
type modelSpace struct {
	w     *modelWorld
	cells [modelCells]modelCell

	// brk is the heap: where it starts, a cell, and where it ends, in bytes behind
	// the start of that cell.
	brkStart int
	brkBytes uint64

	futureLock memmap.MLockMode
}

// modelWorld is what address spaces have in common.
type modelWorld struct {
	pages   uint64 // in a cell
	topDown bool
	files   []*modelFile

	// Resource limits, in bytes.
	limitAS, limitData, limitLocked, limitStack uint64

	spaces []*modelSpace
}

// cellSize returns the bytes of a cell.
func (w *modelWorld) cellSize() uint64 { return w.pages * pageSize }

// slotOffsets returns where the slots of a cell are.
func (w *modelWorld) slotOffsets() []uint64 {
	if w.pages == 1 {
		return []uint64{0}
	}
	return []uint64{0, (w.pages - 1) * pageSize}
}

// guard is how many cells stay free below a mapping that grows down.
func (w *modelWorld) guard() int { return int((256 + w.pages - 1) / w.pages) }

// at returns the cell at i, which may be outside of the address space.
func (s *modelSpace) at(i int) modelCell {
	if i < 0 || i >= modelCells {
		return modelCell{}
	}
	return s.cells[i]
}

// run is a maximal range of cells that are one mapping.
type modelRun struct{ start, end int }

// continues returns whether the cell at i belongs to the same mapping as the one
// before it.
func (s *modelSpace) continues(i int) bool {
	l, r := s.at(i-1), s.at(i)
	return l.mapped && r.mapped && l.modelAttrs == r.modelAttrs && (l.file == nil || l.off+1 == r.off)
}

// runs returns the mappings, in order, clipped to [start, end).
func (s *modelSpace) runs(start, end int) []modelRun {
	var rs []modelRun
	for i := max(start, 0); i < min(end, modelCells); i++ {
		switch n := len(rs); {
		case !s.cells[i].mapped:
		case n != 0 && rs[n-1].end == i && s.continues(i):
			rs[n-1].end = i + 1
		default:
			rs = append(rs, modelRun{i, i + 1})
		}
	}
	return rs
}

// runAt returns the mapping at i.
func (s *modelSpace) runAt(i int) (modelRun, bool) {
	for _, r := range s.runs(0, modelCells) {
		if i >= r.start && i < r.end {
			return r, true
		}
	}
	return modelRun{}, false
}

// hole returns whether some of [start, end) is not mapped.
func (s *modelSpace) hole(start, end int) bool {
	for i := start; i < end; i++ {
		if !s.at(i).mapped {
			return true
		}
	}
	return false
}

// free returns whether nothing is mapped in [start, end).
func (s *modelSpace) free(start, end int) bool {
	return len(s.runs(start, end)) == 0
}

// isData returns whether the cell counts against RLIMIT_DATA.
func (a *modelAttrs) isData() bool { return a.private && a.perms.Write && !a.grows }

// count returns the counters of [start, end).
func (s *modelSpace) count(start, end int) counters {
	var n counters
	for i := max(start, 0); i < min(end, modelCells); i++ {
		c := &s.cells[i]
		if !c.mapped {
			continue
		}
		n.as += s.w.cellSize()
		if c.lock != memmap.MLockNone {
			n.locked += s.w.cellSize()
		}
		if c.isData() {
			n.data += s.w.cellSize()
		}
	}
	return n
}

// total returns the counters of everything.
func (s *modelSpace) total() counters { return s.count(0, modelCells) }

// fits returns whether [start, start+n) can be had without replacing anything,
// given that what grows down keeps its distance.
func (s *modelSpace) fits(start, n int) bool {
	if start < 0 || start+n > modelCells || !s.free(start, start+n) {
		return false
	}
	for i := start + n; i < modelCells; i++ {
		if s.cells[i].mapped {
			return !s.cells[i].grows || start+n <= i-s.w.guard()
		}
	}
	return true
}

// search returns where the system puts n cells, preferably at a multiple of align.
func (s *modelSpace) search(n, align int) (int, error) {
	best, found := 0, false
	for a := 0; a < modelCells; a++ {
		if s.cells[a].mapped || a > 0 && !s.cells[a-1].mapped {
			continue
		}
		// [a, b) is a hole.
		b := a
		for b < modelCells && !s.cells[b].mapped {
			b++
		}
		if b < modelCells && s.cells[b].grows {
			b = max(a, b-s.w.guard())
		}
		if b-a < n {
			continue
		}
		if s.w.topDown {
			best = b - n
			if down := best / align * align; down >= a {
				best = down
			}
			found = true // and go on: higher is better
			continue
		}
		best = a
		if up := (a + align - 1) / align * align; up+n <= b {
			best = up
		}
		return best, nil
	}
	if !found {
		return 0, linuxerr.ENOMEM
	}
	return best, nil
}

// mayLock returns what RLIMIT_MEMLOCK says to n more bytes in the place of
// replaced; asked is set if the caller asked for locking.
func (s *modelSpace) mayLock(n, replaced uint64, asked bool) error {
	switch {
	case asked && s.w.limitLocked == 0:
		return linuxerr.EPERM
	case s.total().locked-replaced+n > s.w.limitLocked:
		return linuxerr.EAGAIN
	}
	return nil
}

// mayGrow returns ENOMEM if a limit forbids growing by n bytes of a mapping with
// the given attributes. n may be negative.
func (s *modelSpace) mayGrow(a *modelAttrs, n int64) error {
	t := s.total()
	if int64(t.as)+n > int64(s.w.limitAS) || a.isData() && int64(t.data)+n > int64(s.w.limitData) {
		return linuxerr.ENOMEM
	}
	return nil
}

// newCell returns a cell that has just been mapped.
func (s *modelSpace) newCell(a modelAttrs, off int) modelCell {
	c := modelCell{mapped: true, modelAttrs: a}
	if a.file != nil {
		c.off = off
	}
	for k := range c.slots {
		c.slots[k] = c.fresh(k)
	}
	return c
}

// fresh returns a slot of private memory that nobody has touched yet.
func (c *modelCell) fresh(k int) modelSlot {
	switch {
	case c.file == nil:
		return modelSlot{own: true}
	case c.off < c.file.size:
		return modelSlot{cands: []uint32{c.file.vals[c.off][k]}}
	}
	return modelSlot{}
}

// bus returns whether accesses to the cell get SIGBUS.
func (c *modelCell) bus() bool { return c.file != nil && c.off >= c.file.size }

// clear unmaps [start, end).
func (s *modelSpace) clear(start, end int) {
	for i := max(start, 0); i < min(end, modelCells); i++ {
		s.cells[i] = modelCell{}
	}
}

// value returns what a slot holds, if that is known.
func (c *modelCell) value(k int) (uint32, bool) {
	switch {
	case !c.private:
		return c.file.vals[c.off][k], true
	case c.slots[k].own:
		return c.slots[k].val, true
	}
	return 0, false
}

// mayHold returns whether a slot may hold v.
func (c *modelCell) mayHold(k int, v uint32) bool {
	if known, ok := c.value(k); ok {
		return v == known
	}
	return slices.Contains(c.slots[k].cands, v)
}

// holds notes that a slot was found to hold v. If that is not what the file holds,
// the memory is a copy; copy says so if it is known otherwise.
func (c *modelCell) holds(k int, v uint32, copied bool) {
	if !c.private || c.slots[k].own {
		return
	}
	if copied || v != c.file.vals[c.off][k] {
		c.slots[k].own, c.slots[k].val = true, v
	}
	c.slots[k].cands = []uint32{v}
}

// set stores v in a slot.
func (s *modelSpace) set(i, k int, v uint32) {
	c := &s.cells[i]
	if !c.private {
		s.w.setFile(c.file, c.off, k, v)
		return
	}
	c.slots[k].own, c.slots[k].val, c.slots[k].cands = true, v, nil
}

// setFile stores v in a file.
func (w *modelWorld) setFile(f *modelFile, off, k int, v uint32) {
	f.vals[off][k] = v
	for _, s := range w.spaces {
		for i := range s.cells {
			if c := &s.cells[i]; c.mapped && c.private && c.file == f && c.off == off && !c.slots[k].own && !slices.Contains(c.slots[k].cands, v) {
				c.slots[k].cands = append(c.slots[k].cands, v)
			}
		}
	}
}

// dropCopies forgets private copies of the cells of f from start on below end.
func (w *modelWorld) dropCopies(f *modelFile, start, end int) {
	for _, s := range w.spaces {
		for i := range s.cells {
			c := &s.cells[i]
			if !c.mapped || !c.private || c.file != f || c.off < start || c.off >= end {
				continue
			}
			for k := range c.slots {
				c.slots[k] = c.fresh(k)
			}
		}
	}
}

// truncate sets the size of f.
func (w *modelWorld) truncate(f *modelFile, size int) {
	old := f.size
	f.size = size
	for off := old; off < size; off++ {
		for k := range modelSlots {
			w.setFile(f, off, k, 0)
		}
	}
	w.dropCopies(f, size, modelFileCells)
	for off := size; off < old; off++ {
		f.vals[off] = [modelSlots]uint32{}
	}
}
