package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// holdMin is from how many bytes on a copy lets activeMu go. Copying less takes no longer than
// holding and releasing the pages and a fault's turn together.
const holdMin = 256 << 10

// holdPages keeps the pages behind the first n bytes of ars what they are until the returned function
// is called: with references on them, and without activeMu, so that a copy of many megabytes keeps nobody
// waiting; or with activeMu, if the copy is short or some of the pages are shared.
//
// Pages that are held may be unmapped meanwhile. The copy then goes on where nobody looks any more, as if all
// of it had come before. That is so for private pages. Those of a file the file may want to have back, and
// change or write: when Invalidate returns, nobody must be able to reach them. So activeMu stays
// locked for them.
//
// Preconditions: activeMu is locked for reading; the returned function unlocks it, if it is not unlocked
// on return. pmas exist for these bytes, and writable ones, if they are written to, are not copy-on-write.
func (mm *MemoryManager) holdPages(ctx context.Context, ars hostarch.AddrRangeSeq, n uint64) (release func()) {
	if n < holdMin {
		return mm.activeMu.RUnlock
	}
	var held []fileRef
	for rest := ars.TakeFirst64(int64(n)); !rest.IsEmpty(); rest = rest.Tail() {
		ar := rest.Head()
		if ar.Length() == 0 {
			continue
		}
		end, _ := ar.End.RoundUp()
		pages := hostarch.AddrRange{Start: ar.Start.RoundDown(), End: end}
		for r, p := range mm.pmas.Within(treeRange(pages)) {
			if !p.private {
				return mm.activeMu.RUnlock
			}
			held = append(held, fileRef{p.file, p.fileRange(r.Start, addrRange(r).Intersect(pages))})
		}
	}
	// As with Pin, a forked child gets copies, so that the pages stay this MemoryManager's.
	mm.holding.Add(1)
	cgID := pgalloc.MemoryCgroupIDFromContext(ctx)
	for _, ref := range held {
		ref.file.IncRef(ref.fr, cgID)
	}
	mm.activeMu.RUnlock()
	return func() {
		for _, ref := range held {
			ref.file.DecRef(ref.fr)
		}
		mm.holding.Add(-1)
	}
}
