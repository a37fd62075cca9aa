package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
)

// A mapping that grows down does so when somebody touches the hole below it: the
// application, or the sentry in its name.
//
//	before  |--prev--|        addr     |--v--|
//	after   |--prev--|        |--------v-----|
//	        |<- guard gap ->|
//
// It is the only change to the tree of vmas that a fault makes, and the only reason
// for one to wait for mappingMu. Accesses that find what they look for do not come
// here, nor do those that find a hole below something else.

// growsAt returns whether the first vma above addr, which nothing is mapped at, is one
// that grows down.
func growsAt(root vmaSnapshot, addr hostarch.Addr) bool {
	c := root.LowerBound(uint64(addr))
	return c.Valid() && c.Range().Start > uint64(addr) && c.Value().growsDown
}

// grewAt returns whether something is mapped at addr, where an access found a hole: because somebody mapped it
// meanwhile, or because the vma above could grow down to it. The access may look again then.
//
// Preconditions: as for growDown.
func (mm *MemoryManager) grewAt(ctx context.Context, addr hostarch.Addr) bool {
	root := mm.vmas.Snapshot()
	if _, ok := root.Find(uint64(addr)); ok {
		return true
	}
	return growsAt(root, addr) && mm.growDown(ctx, addr)
}

// growDown makes the vma above addr grow down to the page of addr, if it is one that
// does and nothing forbids it (Linux: expand_stack). It returns whether something is
// mapped at addr then, for the caller to look again. The limits are those of ctx, which
// may be a debugger's.
//
// It is for those who touch memory. What only asks for pages (Pin, mlock) does not make
// mappings grow, as in Linux, where get_user_pages does not.
//
// Preconditions: mappingMu may be locked, see the lock order.
func (mm *MemoryManager) growDown(ctx context.Context, addr hostarch.Addr) bool {
	mm.mappingMu.Lock()
	defer mm.mappingMu.Unlock()
	root := mm.vmas.Peek()
	if _, ok := root.Find(uint64(addr)); ok {
		return true // somebody else was faster
	}
	page := addr.RoundDown()
	if !growsAt(root, page) || page < mm.layout.MinAddr {
		return false
	}
	c := root.LowerBound(uint64(page))
	v, ar := c.Value(), addrRange(c.Range())
	if c.Prev(); c.Valid() && !keepsDistance(c.Value(), page-hostarch.Addr(c.Range().End)) {
		return false
	}
	op := mm.begin(context.Background()) // a debugger's limits are not to be remembered
	op.ctx = ctx
	if uint64(ar.End-page) > mm.limitsOf(ctx).Get(limits.Stack).Cur || op.checkGrowth(v, uint64(ar.Start-page)) != nil {
		op.abort()
		return false
	}
	more := *v
	op.insert(hostarch.AddrRange{Start: page, End: ar.Start}, &more)
	op.publishAside()
	mm.validateIfEnabled()
	return true
}

// keepsDistance returns whether a mapping may grow down to n bytes above prev. Only
// memory that is used for something else must not be near: what grows down itself, or
// cannot be accessed, may be.
func keepsDistance(prev *vma, n hostarch.Addr) bool {
	return n >= guardGap || prev.growsDown || !prev.realPerms.Any()
}
