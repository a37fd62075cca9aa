// Package mm is the sentry's memory manager: the mappings of one application
// address space, the memory behind them, and what is installed of it in the
// platform's address space.
//
// A mapping is replaced in one step, and nobody waits for the cleaning up. An
// operation that takes mappings away or puts new ones in their place (mmap,
// munmap, mremap, brk, shmdt, exit) runs five steps, see operation:
//
//	gather    detach what the range holds, in a transaction nobody sees
//	check     refuse what limits forbid, with the replaced range deducted
//	ask       register the new mapping with its Mappable, which may refuse
//	install   publish the new tree of vmas and take the old pmas out
//	complete  unmap from the host, deregister the old vmas, thaw
//
// Until install nothing has happened, and dropping the transaction undoes it
// all. From install on nothing can fail (but see RequirePlatformEffect in
// mmap.go), and nobody has to hold still for the rest: readers of the tree take
// no lock, and faults wait only for ranges that are frozen, and only as long as
// those are.
//
// Three layers:
//
//   - vmas: which addresses are mapped, to what, with which permissions. An
//     immutable tree (pkg/vmatree) behind one atomic pointer. A vma never changes
//     once it is published; changing one publishes another in its place.
//   - pmas: which pages of which memmap.File back those addresses.
//   - the platform.AddressSpace: which of the pmas the application's hardware sees.
//
// Lock order:
//
//	fs locks, except memmap.Mappable's
//	  metadata.mu
//	    MemoryManager.mappingMu
//	      locks taken by memmap.Mappable and memmap.MappingIdentity methods,
//	      except Translate
//	        kernel.TaskSet.mu
//	          MemoryManager.activeMu (Fork locks the parent's, then the child's)
//	            locks taken by memmap.Mappable.Translate
//	              MemoryManager.spares.mu
//	              MemoryManager.turns.mu
//	                platform.AddressSpace locks
//	                  memmap.File locks
//	              underWay.mu
//	              MemoryManager.populated.mu
//	      MemoryManager.spares.giving
//	        MemoryManager.spares.mu
//	        memmap.File locks
//	      aioManager.mu
//	        AIOContext.mu
//
// From install to thaw an operation takes no lock that comes before those of
// Mappables. A thaw may be awaited only where mappingMu could be taken: never
// under the locks of Mappables, kernel.TaskSet.mu or activeMu. What is under way (awaitMaps)
// may be awaited with mappingMu and activeMu locked: it takes locks of the platform and of
// memory files only, and whoever waits for their turn to ask the host waits for no more than that. Invalidate, which
// Mappables call with their locks held, waits for host work only.
package mm

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/atomicbitops"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/sync"

	"sentrymm/pkg/vmatree"
)

// MemoryManager is one application address space. It implements
// memmap.MappingSpace, usermem.IO and platform.MemoryManager.
//
// All exported methods may be called concurrently, except where they say
// otherwise.
type MemoryManager struct {
	// p, mf and haveASIO do not change. mf backs private anonymous memory;
	// haveASIO is p.SupportsAddressSpaceIO().
	p        platform.Platform
	mf       *pgalloc.MemoryFile
	haveASIO bool

	// layout says where mappings may lie. The loader sets it before the
	// MemoryManager has mappings or is used concurrently.
	layout arch.MmapLayout

	// users counts the tasks and others that depend on the mappings. The last
	// one to leave unmaps everything.
	users atomicbitops.Int32

	// vmas is the published tree of vmas with its counters. Reading it takes no
	// lock; identities found in it may be used only between enter and leave.
	// mappingMu is needed to publish.
	//
	// Who holds mappingMu or activeMu for as long as he looks may use Peek, others use Snapshot: an operation that
	// publishes without activeMu leaves the nodes of the tree before alone (publishAside).
	vmas vmatree.Tree[*vma, counters]

	// readers lets lock-free readers use the identities of vmas that may be
	// going away. See enter.
	readers grace

	// mappingMu is held by those who change the tree of vmas, from gather to
	// thaw. No reader of the tree takes it, and no fault and no I/O but those that
	// make a mapping grow (grow.go). So it does no harm that it is kept until the
	// last page of an operation is out of reach, and it makes overlapping operations
	// impossible.
	mappingMu sync.Mutex

	// brk is the heap, or nil before there is one: its start was given by the loader,
	// its end moves with brk(2). Written with mappingMu locked; see heap.
	brk atomic.Pointer[hostarch.AddrRange]

	// defMLockMode is the least lock mode of new vmas, as mlockall(MCL_FUTURE)
	// sets it. Guarded by mappingMu.
	defMLockMode memmap.MLockMode

	// protectPace and decommitPace are how fast MProtect and Decommit went last. Applications protect the same memory, or
	// give it up, again and again, most of it not mapped by the host since the last time. No lock guards them.
	protectPace, decommitPace lastPace

	// limits are the resource limits of whoever last changed a mapping, or faulted,
	// or those that the process was forked with. MProtect has no context to find its
	// caller's in; they are the same, unless processes that share this address space
	// have set theirs apart. They may be nil. Faults write them without a lock.
	limits atomic.Pointer[limits.LimitSet]

	// activeMu guards everything down to capture, where it does not say otherwise. It is never held while calling
	// AddMapping, RemoveMapping, CopyMapping or a MappingIdentity's methods, and
	// never for more than one bounded step of host work, or the few calls that a fork needs at its end. While it is locked for reading
	// the host may have more mapped than there are pmas, see zapAndUnlock.
	activeMu activeMutex

	// pmas holds the pages behind the vmas. Every pma lies within a vma of the
	// published tree, except in frozen ranges. A transaction that nobody ever
	// commits is a mutable tree with a single owner.
	pmas *pmaSet

	// frozen is the operation that has ranges frozen, or nil. Since it holds
	// mappingMu, there is one at most.
	frozen *freeze

	// forking is the fork whose child has got pages ahead of the others, or nil.
	forking *forker

	// hasPinned is set once Pin was called and stays, like Linux's
	// MMF_HAS_PINNED.
	hasPinned bool

	// holding counts copies that hold references on private pages, see holdPages. It becomes more
	// with activeMu locked only.
	holding atomic.Int32

	// as is the host's side. It is nil once the last user has left. Reading it
	// needs mappingMu, activeMu or a user reference; writing it needs both.
	as platform.AddressSpace

	// hot are pages that are written to after each fork.
	hot hotPages

	// capture, if not nil, collects calls to Invalidate instead of carrying them
	// out: this is a forked child whose pmas are not there yet.
	capture *[]invalidation

	// rss is the bytes covered by pmas, maxRSS the most it has been. Writing
	// them needs activeMu.
	rss    atomic.Uint64
	maxRSS atomic.Uint64

	// idle is an operation that is over, for the next one, or nil, and idleAccess the same of an access.
	idle       atomic.Pointer[operation]
	idleAccess atomic.Pointer[accessing]

	// underWay is what the host is mapping without activeMu being locked.
	underWay underWay

	// turns says whose turn it is to ask the host.
	turns hostTurns

	// faults is whether the application faults, mapsReads whether somebody reads /proc/[pid]/maps, and copies whether the sentry
	// copies to or from application memory, as for read(2) and write(2).
	faults, mapsReads, copies activity

	// turn is that of operations and of those who read /proc/[pid]/maps.
	turn turn

	// populated is how much a step populates.
	populated stepSize

	// spares are pages that mappings had, for the next ones.
	spares spares

	// meta is what /proc and prctl want to know of the process image.
	meta metadata

	// aio holds the contexts of io_setup(2).
	aio aioManager
}

// NewMemoryManager returns a MemoryManager without mappings and with one user.
// Private memory comes from mf.
func NewMemoryManager(p platform.Platform, mf *pgalloc.MemoryFile) (*MemoryManager, error) {
	as, err := p.NewAddressSpace()
	if err != nil {
		return nil, err
	}
	mm := newBare(p, mf, as)
	mm.meta.init()
	return mm, nil
}

// newBare returns what a new and a forked MemoryManager have in common.
func newBare(p platform.Platform, mf *pgalloc.MemoryFile, as platform.AddressSpace) *MemoryManager {
	mm := &MemoryManager{
		p:        p,
		mf:       mf,
		haveASIO: p.SupportsAddressSpaceIO(),
		users:    atomicbitops.FromInt32(1),
		as:       as,
		pmas:     newPMASet(),
	}
	mm.aio.init()
	return mm
}

// SetMmapLayout chooses where mappings may lie, from the architecture of ac, the
// limits r and the platform's bounds, and returns it.
//
// Preconditions: mm has no mappings and is not used concurrently.
func (mm *MemoryManager) SetMmapLayout(ac *arch.Context64, r *limits.LimitSet) (arch.MmapLayout, error) {
	l, err := ac.NewMmapLayout(mm.p.MinUserAddress(), mm.p.MaxUserAddress(), r)
	if err == nil {
		mm.layout = l
	}
	return l, err
}

// AddressSpace returns the host's side of mm.
//
// Preconditions: the caller holds a user reference on mm.
func (mm *MemoryManager) AddressSpace() platform.AddressSpace {
	return mm.as
}

// userRange is all that an application may map.
func (mm *MemoryManager) userRange() hostarch.AddrRange {
	return hostarch.AddrRange{Start: mm.layout.MinAddr, End: mm.layout.MaxAddr}
}

// addrRange converts a range of the trees.
func addrRange(r vmatree.Range) hostarch.AddrRange {
	return hostarch.AddrRange{Start: hostarch.Addr(r.Start), End: hostarch.Addr(r.End)}
}

// treeRange converts a range for the trees.
func treeRange(ar hostarch.AddrRange) vmatree.Range {
	return vmatree.Range{Start: uint64(ar.Start), End: uint64(ar.End)}
}
