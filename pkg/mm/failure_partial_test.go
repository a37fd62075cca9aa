package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims of this file: calls that go through several mappings and fail at one have
// been applied to what they got to before, as in Linux, and to nothing else; and this
// is published once. Each is compared with a twin, which makes the same call for the
// part that is to be applied.

// rows are mappings with an obstacle among them. A call goes from the middle of one
// to the middle of four:
//
//	|--one--|--two--|-obstacle-|--four--|
//	    |-----------------------------|
//
// Each is 4 pages long and populated; one and four map a file, two is anonymous.
type rows struct {
	*scene
	one, two, obstacle, four, asked hostarch.AddrRange
}

func newRows(t testing.TB, obstacle func(r *rows)) *rows {
	r := &rows{scene: newScene(t, sceneSizes[0])}
	at := func(i int) hostarch.AddrRange { return rangeAt(r.base+hostarch.Addr(i*edge), edge) }
	r.one, r.two, r.obstacle, r.four = at(0), at(1), at(2), at(3)
	r.asked = hostarch.AddrRange{Start: r.one.Start + edge/2, End: r.four.End - edge/2}
	r.put(r.one, hostarch.Read, privateFile, nameable)
	r.put(r.two, hostarch.Read, nil, nameable)
	r.put(r.four, hostarch.Read, privateFile, nameable)
	obstacle(r)
	r.stamp()
	r.as.forget()
	return r
}

// nameable lets prctl(PR_SET_VMA) name a mapping, be it of a file or not.
func nameable(o *memmap.MMapOpts) { o.NameMut = memmap.NameMutAnon }

// below and above are the parts of asked before and behind the obstacle.
func (r *rows) below() hostarch.AddrRange {
	return hostarch.AddrRange{Start: r.asked.Start, End: r.obstacle.Start}
}

func (r *rows) above() hostarch.AddrRange {
	return hostarch.AddrRange{Start: r.obstacle.End, End: r.asked.End}
}

// appliedParts says what of a call is applied.
type appliedParts int

const (
	belowOnly appliedParts = iota
	aroundObstacle
	nothing
)

// partialCalls are the calls and what stops them. Errors and applied parts are what
// a program saw on Linux 6.18 that did the same, except for prctl, which that kernel
// was built without: there they are what madvise_walk_vmas and
// madvise_vma_anon_name say.
var partialCalls = []struct {
	name     string
	obstacle func(r *rows)
	call     func(r *rows, ar hostarch.AddrRange) error
	want     *errors.Error
	applied  appliedParts
}{
	{"mprotect, hole", hole, protectRW, linuxerr.ENOMEM, belowOnly},
	{"mprotect, forbidden", func(r *rows) {
		r.put(r.obstacle, hostarch.Read, sharedFile, maxPerms(hostarch.Read))
	}, protectRW, linuxerr.EACCES, belowOnly},
	{"mprotect, RLIMIT_DATA", func(r *rows) {
		r.put(r.obstacle, hostarch.Read, nil, named("not to be merged"))
		r.ctx.limit(limits.Data, r.vmas.Snapshot().Meta().data+edge/2+edge)
	}, protectRW, linuxerr.ENOMEM, belowOnly},
	{"mlock, hole", hole, func(r *rows, ar hostarch.AddrRange) error {
		return r.MLock(r.ctx, ar.Start, uint64(ar.Length()), memmap.MLockLazy)
	}, linuxerr.ENOMEM, belowOnly},
	// queue_pages_range looks for holes before the first policy is set.
	{"mbind, hole", hole, func(r *rows, ar hostarch.AddrRange) error {
		return r.SetNumaPolicy(ar.Start, uint64(ar.Length()), 1, 1)
	}, linuxerr.EFAULT, nothing},
	{"madvise DONTFORK, hole", hole, func(r *rows, ar hostarch.AddrRange) error {
		return r.SetDontFork(ar.Start, uint64(ar.Length()), true)
	}, linuxerr.ENOMEM, aroundObstacle},
	{"madvise DONTNEED, hole", hole, decommit, linuxerr.ENOMEM, aroundObstacle},
	{"madvise DONTNEED, locked", func(r *rows) {
		r.put(r.obstacle, hostarch.Read, nil, locked(memmap.MLockEager))
	}, decommit, linuxerr.EINVAL, belowOnly},
	{"prctl anon name, hole", hole, nameIt, linuxerr.ENOMEM, aroundObstacle},
	{"prctl anon name, file", func(r *rows) {
		r.put(r.obstacle, hostarch.Read, sharedFile) // NameMutDisallowed
	}, nameIt, linuxerr.EBADF, belowOnly},
}

func hole(*rows) {}

func protectRW(r *rows, ar hostarch.AddrRange) error {
	return r.MProtect(ar.Start, uint64(ar.Length()), hostarch.ReadWrite, false)
}

func decommit(r *rows, ar hostarch.AddrRange) error {
	return r.Decommit(ar.Start, uint64(ar.Length()))
}

func nameIt(r *rows, ar hostarch.AddrRange) error {
	return r.SetVMAAnonName(ar.Start, uint64(ar.Length()), "name", false)
}

func TestPartialFailureAppliesToThePartBelow(t *testing.T) {
	for _, c := range partialCalls {
		t.Run(c.name, func(t *testing.T) {
			var want captured
			t.Run("twin", func(t *testing.T) {
				r := newRows(t, c.obstacle)
				parts := []hostarch.AddrRange{r.below(), r.above()}
				switch c.applied {
				case belowOnly:
					parts = parts[:1]
				case nothing:
					parts = nil
				}
				for _, ar := range parts {
					if err := c.call(r, ar); err != nil {
						t.Fatalf("%v: %v", ar, err)
					}
				}
				want = r.captureAll()
			})
			t.Run("failed", func(t *testing.T) {
				r := newRows(t, c.obstacle)
				before := r.captureAll()
				if err := c.call(r, r.asked); !linuxerr.Equals(c.want, err) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				r.mustBeAsBefore(want)
				if (diff(before, want) == "") != (c.applied == nothing) {
					t.Error("the test tests nothing: applying a part makes no difference")
				}
			})
		})
	}
}

// If the first mapping is the obstacle, nothing has changed.
func TestFailureAtTheFirstMappingChangesNothing(t *testing.T) {
	for _, c := range partialCalls {
		if c.applied == aroundObstacle {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			r := newRows(t, c.obstacle)
			if r.ctx.limits.Get(limits.Data).Cur != limits.Infinity {
				r.ctx.limit(limits.Data, 1)
			}
			before := r.captureAll()
			ar := hostarch.AddrRange{Start: r.obstacle.Start, End: r.asked.End}
			if err := c.call(r, ar); !linuxerr.Equals(c.want, err) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			r.mustBeAsBefore(before)
		})
	}
}

// versions notes each version of the tree that is seen whenever an object of the
// harness is called.
type versions struct {
	mm   *MemoryManager
	seen []vmaSnapshot
}

func (v *versions) look(any) error {
	now := v.mm.vmas.Snapshot()
	if n := len(v.seen); n == 0 || !v.seen[n-1].Same(now) {
		v.seen = append(v.seen, now)
	}
	return nil
}

// watch begins to note.
func (r *rows) watch() *versions {
	v := &versions{mm: r.MemoryManager}
	v.look(nil)
	for _, id := range r.w.ids {
		id.on("IncRef", 0, nil, v.look)
		id.on("DecRef", 0, nil, v.look)
	}
	for _, op := range []string{"MapFile", "Unmap"} {
		r.as.on(op, 0, nil, v.look)
	}
	return v
}

// Splitting the file at the edges of the range takes references on its identity,
// and pages that go are unmapped from the host: at these moments readers must see
// the old tree or the final one, and nothing in between.
func TestPartOfAFailedCallIsPublishedOnce(t *testing.T) {
	for _, c := range partialCalls {
		t.Run(c.name, func(t *testing.T) {
			r := newRows(t, c.obstacle)
			v := r.watch()
			c.call(r, r.asked)
			v.look(nil)
			if len(v.seen) > 2 {
				t.Errorf("%d versions of the tree were seen", len(v.seen)-1)
			}
			r.mustBeSettled()
		})
	}
}

// Reducing the permissions of several pieces publishes before the first of them is
// unmapped, and not again.
func TestProtectingManyPiecesIsPublishedOnce(t *testing.T) {
	const n = 3 * pieceSize
	r := newRows(t, hole)
	start := r.base + 1<<30
	r.mustMap(n, hostarch.ReadWrite, fixedAt(start), populated)
	if err := r.MProtect(start+pieceSize, pieceSize, hostarch.AnyAccess, false); err != nil {
		t.Fatal(err)
	}
	v := r.watch()
	r.as.forget()
	if err := r.MProtect(start, n+pageSize, hostarch.Read, false); !linuxerr.Equals(linuxerr.ENOMEM, err) {
		t.Errorf("got %v", err)
	}
	final := r.vmas.Snapshot()
	if calls := r.as.history(); len(calls) != 3 || len(v.seen) != 2 || !v.seen[1].Same(final) {
		t.Errorf("%d versions were seen during these calls:\n%s", len(v.seen), callString(calls))
	}
	r.mustBeSettled()
}
