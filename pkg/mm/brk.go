package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// BrkSetup places an empty heap at addr. An earlier heap is unmapped.
func (mm *MemoryManager) BrkSetup(ctx context.Context, addr hostarch.Addr) {
	mm.mappingMu.Lock()
	op := mm.begin(ctx)
	if mm.heap().Length() != 0 {
		op.unmap(mm.heapPages())
	}
	mm.setHeap(hostarch.AddrRange{Start: addr, End: addr})
	mm.mappingMu.Unlock()
	op.finish()
}

// heap returns where the heap is. Its end may move at any time if mappingMu is not locked.
func (mm *MemoryManager) heap() hostarch.AddrRange {
	if ar := mm.brk.Load(); ar != nil {
		return *ar
	}
	return hostarch.AddrRange{}
}

// setHeap says where the heap is.
//
// Preconditions: mappingMu is locked, or nobody else knows mm.
func (mm *MemoryManager) setHeap(ar hostarch.AddrRange) { mm.brk.Store(&ar) }

// heapPages returns the pages of the heap. The page that the heap begins in belongs
// to the program's data.
//
// Preconditions: mappingMu is locked.
func (mm *MemoryManager) heapPages() hostarch.AddrRange {
	heap := mm.heap()
	start, _ := heap.Start.RoundUp()
	end, _ := heap.End.RoundUp()
	return hostarch.AddrRange{Start: start, End: end}
}

// Brk moves the end of the heap to addr, as brk(2) does, and returns where it is
// then: addr, or with an error where it was.
//
// Errors: EINVAL below the heap's start; ENOMEM if a limit or another mapping is in
// the way, or nothing is mapped where the heap would shrink; EFAULT if addr is beyond all addresses.
func (mm *MemoryManager) Brk(ctx context.Context, addr hostarch.Addr) (hostarch.Addr, error) {
	mm.mappingMu.Lock()
	if err := mm.checkBrk(ctx, addr); err != nil {
		defer mm.mappingMu.Unlock()
		return mm.heap().End, err
	}
	oldEnd := mm.heapPages().End
	newEnd, _ := addr.RoundUp()
	op := mm.begin(ctx)
	var err error
	var how *population
	switch {
	case newEnd < oldEnd && op.before.Covered(treeRange(hostarch.AddrRange{Start: newEnd, End: oldEnd})) == 0:
		// Somebody else has unmapped it. Linux leaves its end where it was, too.
		op.abort()
		err = linuxerr.ENOMEM
	case newEnd < oldEnd:
		op.unmap(hostarch.AddrRange{Start: newEnd, End: oldEnd})
	case newEnd > oldEnd && mm.endsHeap(newEnd):
		op.abort()
		err = linuxerr.ENOMEM
	case newEnd > oldEnd:
		if mm.defMLockMode == memmap.MLockEager {
			how = &population{effect: memmap.PlatformEffectCommit}
		}
		err = op.mapNew(&memmap.MMapOpts{
			Addr:     oldEnd,
			Length:   uint64(newEnd - oldEnd),
			Fixed:    true,
			Perms:    hostarch.ReadWrite,
			MaxPerms: hostarch.AnyAccess,
			Private:  true,
			NameMut:  memmap.NameMutAnon,
		}, how)
	}
	if err == nil {
		mm.setHeap(hostarch.AddrRange{Start: mm.heap().Start, End: addr})
	}
	end := mm.heap().End
	mm.mappingMu.Unlock()
	op.finish()
	return end, err
}

// endsHeap returns whether a mapping keeps the heap from growing to end. Linux leaves a
// page between the two.
//
// Preconditions: mappingMu is locked.
func (mm *MemoryManager) endsHeap(end hostarch.Addr) bool {
	c := mm.vmas.Peek().LowerBound(uint64(mm.heapPages().End))
	return c.Valid() && (end > usableEnd(c) || usableEnd(c)-end < hostarch.PageSize)
}

// checkBrk refuses an end of the heap that cannot be.
//
// Linux compares RLIMIT_DATA with the heap and the program's data segment here,
// and with all private writable memory when the heap grows. The sentry's loader
// keeps the size of the data segment to itself, but that segment is among the
// latter, so nothing is missed: see operation.check.
//
// Preconditions: mappingMu is locked.
func (mm *MemoryManager) checkBrk(ctx context.Context, addr hostarch.Addr) error {
	start := mm.heap().Start
	if addr < start {
		return linuxerr.EINVAL
	}
	if uint64(addr-start) > limits.FromContext(ctx).Get(limits.Data).Cur {
		return linuxerr.ENOMEM
	}
	if _, ok := addr.RoundUp(); !ok {
		return linuxerr.EFAULT
	}
	return nil
}
