package mm

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// IncUsers takes a user reference and returns true; it returns false if there are no
// users any more.
func (mm *MemoryManager) IncUsers() bool {
	for n := mm.users.Load(); n != 0; n = mm.users.Load() {
		if mm.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// DecUsers releases a user reference. With the last one, everything is unmapped.
func (mm *MemoryManager) DecUsers(ctx context.Context) {
	switch n := mm.users.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic(fmt.Sprintf("mm: %d users", n))
	}
	mm.spares.close()
	mm.giveBack(mm.spares.takeAll())
	mm.destroyAIOContexts(ctx)
	mm.meta.release(ctx)

	// The host's side goes as a whole, so that there is nothing to unmap later.
	mm.mappingMu.Lock()
	mm.activeMu.Lock()
	as := mm.as
	mm.as = nil
	mm.awaitMaps(hostarch.AddrRange{End: ^hostarch.Addr(0)})
	mm.activeMu.Unlock()
	mm.mappingMu.Unlock()
	if as != nil {
		as.Release()
	}

	mm.mappingMu.Lock()
	op := mm.begin(ctx)
	// All there is, wherever it is: a Force mapping may lie outside the layout.
	op.unmap(hostarch.AddrRange{End: ^hostarch.Addr(hostarch.PageSize - 1)})
	mm.mappingMu.Unlock()
	op.finish()
}
