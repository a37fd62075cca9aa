package mm

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"

	"sentrymm/pkg/vmatree"
)

// alter puts altered vmas in the place of those in ar, cut to ar, and merges what
// is alike then. change returns what a vma is to become, or an error to stop at.
// alter stops at the first address that has no vma, unless skipHoles is set. It
// returns whether there was such an address, and change's error. What was altered
// before stays in the transaction either way: Linux's calls of this kind apply to
// the part before a failure.
//
// Preconditions: mappingMu is locked. ar is page-aligned.
func (op *operation) alter(ar hostarch.AddrRange, skipHoles bool, change func(r vmatree.Range, v *vma) (vma, error)) (hole bool, err error) {
	for rest := treeRange(ar); rest.Len() != 0; {
		c := op.txn.LowerBound(rest.Start)
		if !c.Valid() {
			hole = true
			break
		}
		if c.Range().Start > rest.Start {
			hole = true
			if rest.Start = c.Range().Start; !skipHoles || rest.Start >= rest.End {
				break
			}
		}
		all, old := c.Range(), c.Value()
		r := all.Intersect(rest)
		var v vma
		if v, err = change(r, old); err != nil {
			break
		}
		v.off = old.offsetAt(hostarch.Addr(all.Start), hostarch.Addr(r.Start))
		whole := *old
		whole.off = v.off
		if v != whole {
			op.replace(r, old, &v)
		}
		rest.Start = r.End
	}
	return hole, err
}

// alterAndPublish runs alter in an operation of its own, for changes that concern
// nothing but vmas.
//
// Preconditions: no locks of mm are held.
func (mm *MemoryManager) alterAndPublish(ar hostarch.AddrRange, skipHoles bool, change func(r vmatree.Range, v *vma) (vma, error)) (hole bool, err error) {
	mm.mappingMu.Lock()
	op := mm.begin(context.Background())
	hole, err = op.alter(ar, skipHoles, change)
	op.publishAside()
	mm.validateIfEnabled()
	mm.mappingMu.Unlock()
	op.finish()
	return hole, err
}

// NumaPolicy returns what mbind(2) set at addr, as get_mempolicy(2) does with
// MPOL_F_ADDR.
//
// Errors: EFAULT if nothing is mapped there.
func (mm *MemoryManager) NumaPolicy(addr hostarch.Addr) (linux.NumaPolicy, uint64, error) {
	e, ok := mm.vmas.Snapshot().Find(uint64(addr))
	if !ok {
		return 0, 0, linuxerr.EFAULT
	}
	return e.Value.numaPolicy, e.Value.numaNodemask, nil
}

// SetNumaPolicy records the policy of a range, as mbind(2) does. It has no effect
// beyond NumaPolicy.
//
// Errors: EINVAL for an unaligned address or a range that wraps around; EFAULT if
// part of it is not mapped, and then nothing has changed. MPOL_DEFAULT skips what is
// not mapped, unless that is all (Linux: MPOL_MF_DISCONTIG_OK).
func (mm *MemoryManager) SetNumaPolicy(addr hostarch.Addr, length uint64, policy linux.NumaPolicy, nodemask uint64) error {
	// A length that overflows when rounded up is 0 to Linux.
	rounded, _ := hostarch.PageRoundUp(length)
	ar, ok := addr.ToRange(rounded)
	if !ok || !addr.IsPageAligned() {
		return linuxerr.EINVAL
	}
	if ar.Length() == 0 {
		return nil
	}
	mm.mappingMu.Lock()
	op := mm.begin(context.Background())
	mapped := op.before.Covered(treeRange(ar))
	if mapped == 0 || mapped < uint64(ar.Length()) && policy&^linux.MPOL_MODE_FLAGS != linux.MPOL_DEFAULT {
		op.abort()
		mm.mappingMu.Unlock()
		return linuxerr.EFAULT
	}
	op.alter(ar, true, func(_ vmatree.Range, v *vma) (vma, error) {
		n := *v
		n.numaPolicy, n.numaNodemask = policy, nodemask
		return n, nil
	})
	op.publishAside()
	mm.validateIfEnabled()
	mm.mappingMu.Unlock()
	op.finish()
	return nil
}

// adviceRange returns the range of madvise(2) and prctl(PR_SET_VMA).
func adviceRange(addr hostarch.Addr, length uint64) (hostarch.AddrRange, error) {
	rounded, ok := hostarch.PageRoundUp(length)
	if !ok || !addr.IsPageAligned() {
		return hostarch.AddrRange{}, linuxerr.EINVAL
	}
	ar, ok := addr.ToRange(rounded)
	if !ok {
		return hostarch.AddrRange{}, linuxerr.EINVAL
	}
	return ar, nil
}

// advise alters vmas as madvise(2) does: it skips what is not mapped and then
// returns ENOMEM.
func (mm *MemoryManager) advise(addr hostarch.Addr, length uint64, change func(v *vma) error) error {
	ar, err := adviceRange(addr, length)
	if err != nil || ar.Length() == 0 {
		return err
	}
	hole, err := mm.alterAndPublish(ar, true, func(_ vmatree.Range, v *vma) (vma, error) {
		n := *v
		err := change(&n)
		return n, err
	})
	if err == nil && hole {
		err = linuxerr.ENOMEM
	}
	return err
}

// SetDontFork sets whether forked children get the mappings of a range, as
// madvise(2) does with MADV_DONTFORK and MADV_DOFORK.
//
// Errors: EINVAL for an unaligned address or a range that wraps around; ENOMEM if
// part of it is not mapped, with the rest set.
func (mm *MemoryManager) SetDontFork(addr hostarch.Addr, length uint64, dontfork bool) error {
	return mm.advise(hostarch.UntaggedUserAddr(addr), length, func(v *vma) error {
		v.dontfork = dontfork
		return nil
	})
}

// SetVMAAnonName names the anonymous mappings in a range for /proc/[pid]/maps, as
// prctl(2) does with PR_SET_VMA_ANON_NAME, or takes their names away if nameIsNil.
//
// Errors: EINVAL for a name with characters that Linux does not allow, an unaligned
// address or a range that wraps around; EBADF at the first mapping that is not
// anonymous, with those below it named; ENOMEM if part of the range is not mapped,
// with the rest named.
func (mm *MemoryManager) SetVMAAnonName(addr hostarch.Addr, length uint64, name string, nameIsNil bool) error {
	for _, c := range []byte(name) {
		switch {
		case c < ' ' || c > '~', c == '\\', c == '`', c == '$', c == '[', c == ']':
			return linuxerr.EINVAL
		}
	}
	return mm.advise(addr, length, func(v *vma) error {
		switch {
		case v.nameMut == memmap.NameMutDisallowed:
			return linuxerr.EBADF
		case nameIsNil:
			v.name = ""
		case v.nameMut == memmap.NameMutAnon:
			v.name = fmt.Sprintf("[anon:%s]", name)
		case v.nameMut == memmap.NameMutAnonShmem:
			v.name = fmt.Sprintf("[anon_shmem:%s]", name)
		}
		return nil
	})
}
