package mm

import (
	"errors"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// The system calls of the model. They do at once, cell by cell, what the manual
// pages say. Each returns what the system call has to.

// errBus stands for SIGBUS, errPopulate for any error that populating can end
// with.
var (
	errBus      = errors.New("SIGBUS")
	errPopulate = errors.New("some error")
)

// modelMmap is what is asked of mmap.
type modelMmap struct {
	modelAttrs
	addr, n   int // addr is -1 if there is no preference
	off       int
	fixed     bool // MAP_FIXED
	noReplace bool // MAP_FIXED_NOREPLACE
}

// mmap maps r.n cells. refused is what the file refuses with, if it does; asked
// says whether it got as far as asking it.
func (s *modelSpace) mmap(r modelMmap, refused error) (start int, asked bool, err error) {
	inside := r.addr >= 0 && r.addr+r.n <= modelCells
	switch {
	case r.fixed && inside:
		start = r.addr
	case r.noReplace && inside && !s.free(r.addr, r.addr+r.n):
		return 0, false, linuxerr.EEXIST
	case r.noReplace && inside:
		start = r.addr
	case r.fixed || r.noReplace:
		return 0, false, linuxerr.ENOMEM
	case inside && s.fits(r.addr, r.n):
		start = r.addr
	default:
		align := 1
		if bytes := uint64(r.n) * s.w.cellSize(); r.private && !r.grows && !r.stack && bytes%hostarch.HugePageSize == 0 {
			align = int(hostarch.HugePageSize / s.w.cellSize())
		}
		if start, err = s.search(r.n, align); err != nil {
			return 0, false, err
		}
	}
	locks := r.lock != memmap.MLockNone
	r.lock = max(r.lock, s.futureLock)
	replaced := s.count(start, start+r.n)
	bytes := uint64(r.n) * s.w.cellSize()
	if r.lock != memmap.MLockNone {
		if err := s.mayLock(bytes, replaced.locked, locks); err != nil {
			return 0, false, err
		}
	}
	if !r.max.SupersetOf(r.perms) {
		return 0, false, linuxerr.EACCES
	}
	if err := s.mayGrow(&r.modelAttrs, int64(bytes)-int64(replaced.as)); err != nil {
		return 0, false, err
	}
	if r.file != nil && refused != nil {
		return 0, true, refused
	}
	s.put(start, r.n, r.modelAttrs, r.off)
	return start, r.file != nil, nil
}

// put maps n cells at start.
func (s *modelSpace) put(start, n int, a modelAttrs, off int) {
	for i := range n {
		s.cells[start+i] = s.newCell(a, off+i)
	}
}

// modelRemap is what is asked of mremap.
type modelRemap struct {
	old, oldN, newN int
	mode            MRemapMoveMode
	to              int
}

// mremap resizes or moves. refuseAdd is what the file refuses a mapping behind the
// old one with, refuseCopy what files refuse the n-th copy with.
func (s *modelSpace) mremap(r modelRemap, refuseAdd error, refuseCopy func(n int) error) (start int, err error) {
	if r.newN == 0 {
		return 0, linuxerr.EINVAL
	}
	if r.mode == MRemapMustMove && (r.to+r.newN > modelCells || r.to < r.old+r.oldN && r.old < r.to+r.newN) {
		return 0, linuxerr.EINVAL
	}
	if r.mode == MRemapMustMove && r.newN == r.oldN {
		return r.to, s.moveAll(r, refuseCopy)
	}
	run, ok := s.runAt(r.old)
	if !ok {
		return 0, linuxerr.EFAULT
	}
	first := s.cells[r.old]
	switch {
	case r.oldN == 0 && first.private, r.newN < r.oldN && r.old+r.oldN > modelCells:
		return 0, linuxerr.EINVAL
	case r.mode == MRemapMustMove && r.old >= r.to && r.old < r.to+r.newN:
		return 0, linuxerr.EFAULT // Linux would have unmapped it by then
	}
	if r.mode != MRemapMustMove && r.newN <= r.oldN {
		s.clear(r.old+r.newN, r.old+r.oldN)
		return r.old, nil
	}
	if run.end < r.old+min(r.oldN, r.newN) {
		return 0, linuxerr.EFAULT // what is cut off may be anything
	}
	if r.mode != MRemapMustMove {
		if err := s.mayBecome(first, r.newN-r.oldN); err != nil {
			return 0, err // whether or not there is room
		}
		err = s.grow(r, first, refuseAdd)
		if err == nil || r.mode == MRemapNoMove {
			return r.old, err
		}
	}
	return s.move(r, first, refuseCopy(1))
}

// mayBecome refuses more cells like first if limits do.
func (s *modelSpace) mayBecome(first modelCell, more int) error {
	bytes := uint64(more) * s.w.cellSize()
	if first.lock != memmap.MLockNone {
		if err := s.mayLock(bytes, 0, false); err != nil {
			return err
		}
	}
	return s.mayGrow(&first.modelAttrs, int64(bytes))
}

// grow extends the mapping at r.old in place. No distance is kept to what grows down.
func (s *modelSpace) grow(r modelRemap, first modelCell, refused error) error {
	end, more := r.old+r.oldN, r.newN-r.oldN
	if end+more > modelCells || !s.free(end, end+more) {
		return linuxerr.ENOMEM
	}
	if first.file != nil && refused != nil {
		return refused
	}
	s.put(end, more, first.modelAttrs, first.off+r.oldN)
	return nil
}

// moveAll moves all mappings of a range, one after the other, until a file refuses
// one.
//
//	old  |--a--|     |-b-|           a and b are gone
//	to   |--a--| ... |-b-|           what was here is gone, what was at ... is not
func (s *modelSpace) moveAll(r modelRemap, refuse func(n int) error) error {
	if !s.cells[r.old].mapped {
		return linuxerr.EFAULT
	}
	asked := 0
	for _, run := range s.runs(r.old, r.old+r.oldN) {
		to, n := r.to+run.start-r.old, run.end-run.start
		s.clear(to, to+n)
		if s.cells[run.start].file != nil {
			asked++
			if err := refuse(asked); err != nil {
				return err
			}
		}
		copy(s.cells[to:], s.cells[run.start:run.end])
		s.clear(run.start, run.end)
	}
	return nil
}

// move moves the mapping at r.old, or copies it if r.oldN is 0.
//
//	old  |--- moved ---|- cut off -|           moved and cut off are gone
//	to   |--- moved ---|- new -|               what was here is gone
func (s *modelSpace) move(r modelRemap, first modelCell, refused error) (start int, err error) {
	if r.mode == MRemapMustMove {
		start = r.to
	} else if start, err = s.search(r.newN, 1); err != nil {
		return 0, err
	}
	moved := min(r.oldN, r.newN)
	gone, cut := s.count(start, start+r.newN), s.count(r.old+moved, r.old+r.oldN)
	bytes := int64(r.newN-moved) * int64(s.w.cellSize())
	if bytes != 0 { // or limits do not matter (Linux: vma_to_resize)
		if first.lock != memmap.MLockNone {
			if err := s.mayLock(uint64(bytes), gone.locked+cut.locked, false); err != nil {
				return 0, err
			}
		}
		if err := s.mayGrow(&first.modelAttrs, bytes-int64(gone.as)-int64(cut.as)); err != nil {
			return 0, err
		}
	}
	s.clear(start, start+r.newN)
	s.clear(r.old+moved, r.old+r.oldN)
	if first.file != nil && refused != nil {
		return 0, refused
	}
	copy(s.cells[start:], s.cells[r.old:r.old+moved])
	s.clear(r.old, r.old+moved)
	s.put(start+moved, r.newN-moved, first.modelAttrs, first.off+moved)
	return start, nil
}

// mprotect sets permissions up to the first mapping that cannot have them.
func (s *modelSpace) mprotect(start, n int, perms hostarch.AccessType, growsDown bool) error {
	end := start + n
	if n == 0 {
		return nil
	}
	if growsDown {
		rs := s.runs(start, end)
		if len(rs) == 0 {
			return linuxerr.ENOMEM
		}
		run, _ := s.runAt(rs[0].start)
		if start = run.start; !s.cells[start].grows {
			return linuxerr.EINVAL
		}
	}
	reached := start
	for _, r := range s.runs(start, end) {
		if r.start > reached {
			break
		}
		c := s.cells[r.start]
		if !c.max.SupersetOf(perms.Effective()) {
			return linuxerr.EACCES
		}
		now := c.modelAttrs
		now.perms = perms
		t, bytes := s.total(), uint64(r.end-r.start)*s.w.cellSize()
		if now.isData() && !c.isData() && t.as+bytes <= s.w.limitAS && t.data+bytes > s.w.limitData {
			return linuxerr.ENOMEM
		}
		for i := r.start; i < r.end; i++ {
			s.cells[i].perms = perms
		}
		reached = r.end
	}
	if reached < end {
		return linuxerr.ENOMEM
	}
	return nil
}

// mlock sets the lock mode up to the first hole.
func (s *modelSpace) mlock(start, n int, mode memmap.MLockMode) error {
	end := start + n
	if mode != memmap.MLockNone {
		if s.w.limitLocked == 0 {
			return linuxerr.EPERM
		}
		if s.total().locked+uint64(n)*s.w.cellSize()-s.count(start, end).locked > s.w.limitLocked {
			return linuxerr.ENOMEM
		}
	}
	for i := start; i < end; i++ {
		if !s.at(i).mapped {
			return linuxerr.ENOMEM
		}
		s.cells[i].lock = mode
	}
	if mode == memmap.MLockEager {
		return s.populate(start, end)
	}
	return nil
}

// populate returns what populating [start, end) ends with.
func (s *modelSpace) populate(start, end int) error {
	for i := start; i < end; i++ {
		c := s.at(i)
		switch {
		case !c.mapped || !c.perms.Any():
			return linuxerr.ENOMEM
		case c.bus():
			return errPopulate
		}
	}
	return nil
}

// mlockall sets lock modes.
func (s *modelSpace) mlockall(opts MLockAllOpts) error {
	if !opts.Current && !opts.Future {
		return linuxerr.EINVAL
	}
	switch {
	case opts.Mode == memmap.MLockNone:
	case s.w.limitLocked == 0:
		return linuxerr.EPERM
	case opts.Current && s.total().as > s.w.limitLocked:
		return linuxerr.ENOMEM
	}
	if opts.Current {
		for i := range s.cells {
			if s.cells[i].mapped {
				s.cells[i].lock = opts.Mode
			}
		}
	}
	// Linux: apply_mlockall_flags
	s.futureLock = memmap.MLockNone
	if opts.Future {
		s.futureLock = opts.Mode
	}
	return nil
}

// decommit is MADV_DONTNEED.
func (s *modelSpace) decommit(start, n int) error {
	for i := start; i < start+n; i++ {
		if i >= modelCells || !s.cells[i].mapped {
			continue
		}
		c := &s.cells[i]
		if c.lock != memmap.MLockNone {
			return linuxerr.EINVAL
		}
		for k := range c.slots {
			c.slots[k] = c.fresh(k)
		}
	}
	if s.hole(start, start+n) {
		return linuxerr.ENOMEM
	}
	return nil
}

// advise changes all cells there are, or stops at an error.
func (s *modelSpace) advise(start, n int, change func(c *modelCell) error) error {
	for i := start; i < start+n; i++ {
		if s.at(i).mapped {
			if err := change(&s.cells[i]); err != nil {
				return err
			}
		}
	}
	if s.hole(start, start+n) {
		return linuxerr.ENOMEM
	}
	return nil
}

// mbind does not like holes, but MPOL_DEFAULT ignores them if that is not all.
func (s *modelSpace) mbind(start, n int, policy linux.NumaPolicy, nodes uint64) error {
	if s.free(start, start+n) || policy != linux.MPOL_DEFAULT && s.hole(start, start+n) {
		return linuxerr.EFAULT
	}
	for i := start; i < min(start+n, modelCells); i++ {
		if s.cells[i].mapped {
			s.cells[i].numa, s.cells[i].nodes = policy, nodes
		}
	}
	return nil
}

// setBrk moves the end of the heap to n bytes behind its start.
func (s *modelSpace) setBrk(n int64) error {
	if n < 0 {
		return linuxerr.EINVAL
	}
	if uint64(n) > s.w.limitData {
		return linuxerr.ENOMEM
	}
	end := func(n uint64) int { return s.brkStart + int(roundUpTo(n, s.w.cellSize())/s.w.cellSize()) }
	was, is := end(s.brkBytes), end(uint64(n))
	switch {
	case is < was:
		if s.free(is, was) {
			return linuxerr.ENOMEM
		}
		s.clear(is, was)
	case is > was:
		a := modelAttrs{private: true, perms: hostarch.ReadWrite, max: hostarch.AnyAccess, nameMut: memmap.NameMutAnon, lock: s.futureLock}
		if !s.heapFits(was, is) {
			return linuxerr.ENOMEM
		}
		bytes := uint64(is-was) * s.w.cellSize()
		if a.lock != memmap.MLockNone {
			if err := s.mayLock(bytes, 0, false); err != nil {
				return err
			}
		}
		if err := s.mayGrow(&a, int64(bytes)); err != nil {
			return err
		}
		s.put(was, is-was, a, 0)
	}
	s.brkBytes = uint64(n)
	return nil
}

// heapFits returns whether the heap can grow from was to is, with a page between it and
// the next mapping, or the gap that one keeps.
func (s *modelSpace) heapFits(was, is int) bool {
	if !s.fits(was, is-was) {
		return false
	}
	for i := is; i < modelCells; i++ {
		if c := &s.cells[i]; c.mapped {
			return int(s.w.pages)*(i-is) > 256*b2i(c.grows)
		}
	}
	return true
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// fork returns a child's address space.
func (s *modelSpace) fork() *modelSpace {
	child := *s
	child.futureLock = memmap.MLockNone
	for i := range child.cells {
		c := &child.cells[i]
		if c.dontfork {
			*c = modelCell{}
		}
		c.lock = memmap.MLockNone
		for k := range c.slots {
			c.slots[k].pins = nil // these pages stay the parent's
			c.slots[k].cands = append([]uint32(nil), c.slots[k].cands...)
		}
	}
	return &child
}

// reach returns how many cells of [start, start+n) an access of type at gets
// through, and why it stops.
func (s *modelSpace) reach(start, n int, at hostarch.AccessType, ignorePermissions bool) (int, error) {
	allowed, err := n, error(nil)
	for i := 0; i < n && err == nil; i++ {
		c := s.at(start + i)
		perms := c.perms.Effective()
		if ignorePermissions {
			perms = c.max
			perms.Write = c.max.Write && (c.private || c.perms.Write)
		}
		switch {
		case !c.mapped:
			allowed, err = i, linuxerr.EFAULT
		case !perms.SupersetOf(at):
			allowed, err = i, linuxerr.EPERM
		}
	}
	// What is missing comes to light only when what is permitted is touched.
	for i := range allowed {
		if c := s.at(start + i); c.bus() {
			return i, errBus
		}
	}
	return allowed, err
}

// growDown makes the mapping above cell i, where nothing is mapped, grow down to it, if
// it may. It returns whether it has.
//
//	|--prev--|  2 cells or more  i |--grows--|
func (s *modelSpace) growDown(i int) bool {
	above := i
	for !s.at(above).mapped {
		if above++; above >= modelCells {
			return false
		}
	}
	first, n := s.cells[above], above-i
	if !first.grows {
		return false
	}
	for prev := i - 1; prev >= max(i-s.w.guard(), 0); prev-- {
		if c := s.cells[prev]; c.mapped {
			if !c.grows && c.perms.Any() {
				return false
			}
			break
		}
	}
	run, _ := s.runAt(above)
	if uint64(run.end-i)*s.w.cellSize() > s.w.limitStack || s.mayBecome(first, n) != nil {
		return false
	}
	s.put(i, n, first.modelAttrs, 0)
	return true
}
