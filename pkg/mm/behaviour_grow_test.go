package mm

import (
	"bytes"
	"math/rand"
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// Claims: whoever touches the hole below a mapping that grows down makes it grow to
// there, if limits and the distance to what is below allow it, and gets EFAULT if they
// do not. Nobody else makes it grow, and nobody else waits. What is "Linux 6.18" was
// printed by programs there.

// growing is an address space with a mapping that grows down, of four pages.
//
//	base  |    1024 pages of room    |-- top --|
type growing struct {
	*testMM
	top hostarch.AddrRange
}

func newGrowing(t testing.TB, perms hostarch.AccessType, mods ...func(*mmConfig)) *growing {
	m := newTestMM(t, mods...)
	g := &growing{m, rangeAt(m.base+1024*pageSize, 4*pageSize)}
	m.mustMap(4*pageSize, perms, growsDown, fixedAt(g.top.Start))
	return g
}

// below returns the address of the n-th page below the mapping.
func (g *growing) below(n int) hostarch.Addr { return g.top.Start - hostarch.Addr(n)*pageSize }

// mustHaveGrown fails the test unless the mapping has grown by n pages.
func (g *growing) mustHaveGrown(what string, n int) {
	g.t.Helper()
	g.check()
	if ar, err := g.FindVMARange(g.top.Start); err != nil || ar != (hostarch.AddrRange{Start: g.below(n), End: g.top.End}) {
		g.t.Errorf("%s: the mapping is %v, %v; it should have grown by %d pages", what, ar, err, n)
	}
}

func TestFaultBelowGrows(t *testing.T) {
	const gap = guardGap / pageSize
	prev := func(perms hostarch.AccessType, mods ...mmapMod) func(g *growing) {
		return func(g *growing) {
			g.mustMap(pageSize, perms, append(mods, fixedAt(g.below(1001)))...)
		}
	}
	for name, c := range map[string]struct {
		perms hostarch.AccessType
		prev  func(g *growing)
		at    hostarch.AccessType
		n     int
		grows bool
		want  *errors.Error
	}{
		"one page":            {hostarch.ReadWrite, nil, hostarch.Write, 1, true, nil},
		"far":                 {hostarch.ReadWrite, nil, hostarch.Read, 1000, true, nil},
		"code":                {hostarch.ReadWrite, nil, hostarch.Execute, 3, true, linuxerr.EPERM},
		"no access":           {hostarch.NoAccess, nil, hostarch.Read, 3, true, linuxerr.EPERM},
		"a write, read-only":  {hostarch.Read, nil, hostarch.Write, 3, true, linuxerr.EPERM},
		"close to other":      {hostarch.ReadWrite, prev(hostarch.Read), hostarch.Write, 1000 - gap + 1, false, linuxerr.EFAULT},
		"not close":           {hostarch.ReadWrite, prev(hostarch.Read), hostarch.Write, 1000 - gap, true, nil},
		"close to code":       {hostarch.ReadWrite, prev(hostarch.Execute), hostarch.Write, 1000, false, linuxerr.EFAULT},
		"up to inaccessible":  {hostarch.ReadWrite, prev(hostarch.NoAccess), hostarch.Write, 1000, true, nil},
		"up to what grows":    {hostarch.ReadWrite, prev(hostarch.Read, growsDown), hostarch.Write, 1000, true, nil},
		"below inaccessible":  {hostarch.ReadWrite, prev(hostarch.NoAccess), hostarch.Write, 1002, false, linuxerr.EFAULT},
		"below all addresses": {hostarch.ReadWrite, func(g *growing) { g.layout.MinAddr = g.below(4) }, hostarch.Write, 5, false, linuxerr.EFAULT},
		"the lowest address":  {hostarch.ReadWrite, func(g *growing) { g.layout.MinAddr = g.below(4) }, hostarch.Write, 4, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrowing(t, c.perms)
			if c.prev != nil {
				c.prev(g)
			}
			mustFailWith(t, "Linux 6.18", g.fault(g.below(c.n)+123, c.at), c.want)
			if !c.grows {
				c.n = 0
			}
			g.mustHaveGrown("after the fault", c.n)
		})
	}
	m := newTestMM(t)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+pageSize))
	mustFailWith(t, "a fault below what does not grow", m.fault(m.base, hostarch.Write), linuxerr.EFAULT)
}

func TestGrowthKeepsLimits(t *testing.T) {
	lock := func(g *growing) {
		if err := g.MLock(g.ctx, g.top.Start, uint64(g.top.Length()), memmap.MLockLazy); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		limit   limits.LimitType
		pages   uint64
		prepare func(g *growing)
		limits  bool
	}{
		"RLIMIT_STACK":                 {limits.Stack, 10, nil, true},
		"RLIMIT_AS":                    {limits.AS, 10, nil, true},
		"RLIMIT_DATA":                  {limits.Data, 1, nil, false},
		"RLIMIT_MEMLOCK, not locked":   {limits.MemoryLocked, 1, nil, false},
		"RLIMIT_MEMLOCK":               {limits.MemoryLocked, 10, lock, true},
		"RLIMIT_MEMLOCK, CAP_IPC_LOCK": {limits.MemoryLocked, 10, func(g *growing) { lock(g); g.ctx.allowIPCLock(true) }, false},
		"RLIMIT_MEMLOCK, for the future": {limits.MemoryLocked, 1, func(g *growing) {
			g.MLockAll(g.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockLazy})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGrowing(t, hostarch.ReadWrite)
			if c.prepare != nil {
				c.prepare(g)
			}
			g.ctx.limit(c.limit, c.pages*pageSize+100)
			var want *errors.Error
			if c.limits {
				want = linuxerr.EFAULT
			}
			before := g.capture()
			err := g.fault(g.below(7), hostarch.Write)
			mustFailWith(t, "one page too many", err, want)
			if err != nil {
				g.mustBeUnchanged(before)
			}
			mustFailWith(t, "exactly as many as allowed", g.fault(g.below(6), hostarch.Write), nil)
		})
	}
}

// What has grown is one mapping and counts as such.
func TestGrowthKeepsAttributes(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite)
	g.SetVMAAnonName(g.top.Start, 4*pageSize, "x", false)
	g.SetDontFork(g.top.Start, 4*pageSize, true)
	g.SetNumaPolicy(g.top.Start, 4*pageSize, 1, 2)
	g.MLock(g.ctx, g.top.Start, 4*pageSize, memmap.MLockEager)
	was, _, _ := g.vmaAt(g.top.Start)
	g.mustFault(g.below(10), pageSize, hostarch.Read)
	g.mustHaveGrown("a fault", 10)
	if v, _, _ := g.vmaAt(g.below(10)); *v != *was {
		t.Errorf("the mapping is %+v; it was %+v", *v, *was)
	}
	if c := g.vmas.Snapshot().Meta(); c != (counters{as: 14 * pageSize, locked: 14 * pageSize}) {
		t.Errorf("counters are %+v", c)
	}
}

// A stack that is as large as the limit grows if that is raised.
func TestStackGrowsWithItsLimit(t *testing.T) {
	m := newTestMM(t)
	m.ctx.limit(limits.Stack, 16*pageSize)
	stack, err := m.MapStack(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	mustFailWith(t, "a fault below the stack", m.fault(stack.Start-1, hostarch.Write), linuxerr.EFAULT)
	m.ctx.limit(limits.Stack, 17*pageSize)
	mustFailWith(t, "with a higher limit", m.fault(stack.Start-1, hostarch.Write), nil)
	mustFailWith(t, "once more", m.fault(stack.Start-pageSize-1, hostarch.Write), linuxerr.EFAULT)
	m.check()
}

// eachIO runs a test for each way in which the sentry accesses memory for applications:
// access does it with n bytes at addr and returns how many it got done.
func eachIO(t *testing.T, test func(t *testing.T, mod func(*mmConfig), access func(g *growing, addr hostarch.Addr, n int) (int64, error))) {
	var none usermem.IOOpts
	for name, access := range map[string]func(g *growing, addr hostarch.Addr, n int) (int64, error){
		"CopyIn": func(g *growing, addr hostarch.Addr, n int) (int64, error) {
			k, err := g.CopyIn(g.ctx, addr, make([]byte, n), none)
			return int64(k), err
		},
		"CopyOut": func(g *growing, addr hostarch.Addr, n int) (int64, error) {
			k, err := g.CopyOut(g.ctx, addr, make([]byte, n), none)
			return int64(k), err
		},
		"ZeroOut": func(g *growing, addr hostarch.Addr, n int) (int64, error) {
			return g.ZeroOut(g.ctx, addr, int64(n), none)
		},
		"CopyOutFrom": func(g *growing, addr hostarch.Addr, n int) (int64, error) {
			src := safemem.FromIOReader{Reader: bytes.NewReader(make([]byte, n))}
			return g.CopyOutFrom(g.ctx, hostarch.AddrRangeSeqOf(rangeAt(addr, uint64(n))), src, none)
		},
		"CopyInTo": func(g *growing, addr hostarch.Addr, n int) (int64, error) {
			return g.CopyInTo(g.ctx, hostarch.AddrRangeSeqOf(rangeAt(addr, uint64(n))), safemem.FromIOWriter{Writer: new(bytes.Buffer)}, none)
		},
		"EnsurePMAsExist": func(g *growing, addr hostarch.Addr, n int) (int64, error) {
			return g.EnsurePMAsExist(g.ctx, addr, int64(n), none)
		},
	} {
		for how, mod := range map[string]func(*mmConfig){"through the address space": withASIO, "through internal mappings": onRealMemory} {
			t.Run(name+", "+how, func(t *testing.T) { test(t, mod, access) })
		}
	}
}

func TestIOBelowGrows(t *testing.T) {
	eachIO(t, func(t *testing.T, mod func(*mmConfig), access func(g *growing, addr hostarch.Addr, n int) (int64, error)) {
		for what, c := range map[string]struct {
			prepare func(g *growing)
			from    int // pages below the mapping
			n       int
			done    int64
			grown   int
			want    *errors.Error
		}{
			"a few bytes": {nil, 9, 4, 4, 9, nil},
			"many pages":  {nil, 900, 901 * pageSize, 901 * pageSize, 900, nil},
			"no access": {func(g *growing) { g.MProtect(g.top.Start, 4*pageSize, hostarch.NoAccess, false) },
				9, 4, 0, 9, linuxerr.EFAULT},
			"limited": {func(g *growing) { g.ctx.limit(limits.Stack, 8*pageSize) },
				9, 10 * pageSize, 0, 0, linuxerr.EFAULT},
			// The hole begins where the access stops, next to other memory.
			"from below it, close": {func(g *growing) { g.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(g.below(10))) },
				9, 10 * pageSize, pageSize, 0, linuxerr.EFAULT},
			"from below it, which grows too": {func(g *growing) { g.mustMap(2*pageSize, hostarch.AnyAccess, growsDown, fixedAt(g.below(10))) },
				9, 10 * pageSize, 10 * pageSize, 8, nil},
			// The access does not get to the hole.
			"from beyond the end of a file": {func(g *growing) {
				f := newTestMappable(g.t, g.mf, pageSize)
				g.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(g.below(12)), privateFile(f, 0))
				g.mustMap(pageSize, hostarch.AnyAccess, growsDown, fixedAt(g.below(10)))
			}, 12, 12 * pageSize, pageSize, 0, linuxerr.EFAULT},
		} {
			t.Run(what, func(t *testing.T) {
				g := newGrowing(t, hostarch.ReadWrite, mod)
				if c.prepare != nil {
					c.prepare(g)
				}
				done, err := access(g, g.below(c.from), c.n)
				if done != c.done || !linuxerr.Equals(c.want, err) {
					t.Errorf("did %#x bytes, %v; want %#x, %v", done, err, c.done, c.want)
				}
				g.mustHaveGrown("after that", c.grown)
			})
		}
	})
}

func TestWordOperationsBelowGrow(t *testing.T) {
	for how, mod := range map[string]func(*mmConfig){"through the address space": withASIO, "through internal mappings": onRealMemory} {
		t.Run(how, func(t *testing.T) {
			g := newGrowing(t, hostarch.ReadWrite, mod)
			for i, op := range []func(addr hostarch.Addr) (uint32, error){
				func(a hostarch.Addr) (uint32, error) { return g.SwapUint32(g.ctx, a, 1, usermem.IOOpts{}) },
				func(a hostarch.Addr) (uint32, error) {
					return g.CompareAndSwapUint32(g.ctx, a, 0, 1, usermem.IOOpts{})
				},
				func(a hostarch.Addr) (uint32, error) { return g.LoadUint32(g.ctx, a, usermem.IOOpts{}) },
			} {
				if v, err := op(g.below(i + 1)); v != 0 || err != nil {
					t.Errorf("operation %d: %d, %v", i, v, err)
				}
				g.mustHaveGrown("after that", i+1)
			}
		})
	}
}

// The sequence has two holes, below two mappings, and an empty range before each.
func TestVectorsBelowGrow(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite, onRealMemory)
	other := g.below(100)
	g.mustMap(pageSize, hostarch.AnyAccess, growsDown, fixedAt(other))
	seq := hostarch.AddrRangeSeqFromSlice([]hostarch.AddrRange{{}, rangeAt(g.below(2), 3), {}, rangeAt(other-3*pageSize, 5)})
	src := safemem.FromIOReader{Reader: bytes.NewReader(make([]byte, 8))}
	if n, err := g.CopyOutFrom(g.ctx, seq, src, usermem.IOOpts{}); n != 8 || err != nil {
		t.Errorf("did %d bytes, %v", n, err)
	}
	g.mustHaveGrown("the first", 2)
	if ar, _ := g.FindVMARange(other); ar.Start != other-3*pageSize {
		t.Errorf("the second is %v", ar)
	}
}

// Who only asks for pages does not make mappings grow; see growDown.
func TestNothingElseGrows(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite)
	a := g.below(1)
	before := g.capture()
	for what, f := range map[string]func() error{
		"Pin": func() error {
			_, err := g.Pin(g.ctx, rangeAt(a, pageSize), hostarch.Write, false)
			return err
		},
		"a shared futex": func() error { _, err := g.GetSharedFutexKey(g.ctx, a); return err },
	} {
		mustFailWith(t, what+", Linux 6.18", f(), linuxerr.EFAULT)
	}
	for what, f := range map[string]func() error{
		"mlock":         func() error { return g.MLock(g.ctx, a, pageSize, memmap.MLockEager) },
		"MADV_DONTNEED": func() error { return g.Decommit(a, pageSize) },
		"msync":         func() error { return g.MSync(g.ctx, a, pageSize, MSyncOpts{Sync: true}) },
		"mprotect":      func() error { return g.MProtect(a, pageSize, hostarch.Read, false) },
	} {
		mustFailWith(t, what+", Linux 6.18", f(), linuxerr.ENOMEM)
	}
	g.mustBeUnchanged(before)
}

// New mappings keep their distance to what has grown.
func TestPlacementKnowsWhatHasGrown(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite)
	g.mustFault(g.below(100), pageSize, hostarch.Write)
	if addr := g.mustMap(pageSize, hostarch.Read, hintAt(g.below(100)-guardGap)); addr == g.below(100)-guardGap {
		t.Error("a hint in the guard gap was taken")
	}
	if addr := g.mustMap(pageSize, hostarch.Read, hintAt(g.below(101)-guardGap)); addr != g.below(101)-guardGap {
		t.Errorf("a hint below the guard gap was not taken, but %#x", addr)
	}
}

// mremap in place is the exception (Linux: vma_expandable).
func TestRemapGrowsIntoTheGuardGap(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite)
	start := g.below(10)
	g.mustMap(pageSize, hostarch.Read, fixedAt(start))
	_, err := g.MRemap(g.ctx, start, pageSize, 10*pageSize, MRemapOpts{})
	mustFailWith(t, "up to what grows down, Linux 6.18", err, nil)
	_, err = g.MRemap(g.ctx, start, 10*pageSize, 11*pageSize, MRemapOpts{})
	mustFailWith(t, "over it", err, linuxerr.ENOMEM)
	g.check()
}

// The sentry builds signal frames with a context that has no limits. What counts then
// is what the process last had.
func TestGrowthWithoutLimitsInContext(t *testing.T) {
	for name, locked := range map[string]bool{"plain": false, "locked": true} {
		t.Run(name, func(t *testing.T) {
			g := newGrowing(t, hostarch.ReadWrite)
			which := limits.Stack
			if locked {
				which = limits.MemoryLocked
				g.MLock(g.ctx, g.top.Start, 4*pageSize, memmap.MLockLazy)
			}
			g.ctx.limit(which, 5*pageSize)
			push := func(n int) error {
				_, err := g.CopyOut(context.Background(), g.below(n), make([]byte, 8), usermem.IOOpts{})
				return err
			}
			mustFailWith(t, "beyond the limit", push(2), linuxerr.EFAULT)
			mustFailWith(t, "up to it", push(1), nil)
			g.mustHaveGrown("after that", 1)
			g.limits.Store(nil)
			mustFailWith(t, "with limits nobody knows", push(2), nil)
		})
	}
}

// A debugger's limits count for what it does, and for nothing else.
func TestDebuggersLimitsAreNotRemembered(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite)
	debugger := g.ctx.clone()
	debugger.limit(limits.Stack, 8*pageSize)
	debugger.limit(limits.Data, 0)
	poke := func(n int) error {
		_, err := g.CopyOut(debugger, g.below(n), make([]byte, 8), usermem.IOOpts{IgnorePermissions: true})
		return err
	}
	mustFailWith(t, "beyond the debugger's limit", poke(5), linuxerr.EFAULT)
	mustFailWith(t, "up to it", poke(4), nil)
	if l := g.limits.Load(); l != g.ctx.limits {
		t.Errorf("remembered are %v; the process has %v", l, g.ctx.limits)
	}
}

// Only what makes a mapping grow waits for who changes mappings; all who wait get what
// they want.
func TestOnlyGrowthWaitsForWriters(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite)
	f := newTestMappable(t, g.mf, pageSize)
	g.mustMap(pageSize, hostarch.Read, fixedAt(g.base), sharedFile(f, 0), populated)
	g.mustMap(pageSize, hostarch.Read, fixedAt(g.base+2*pageSize))
	p := f.pauseAt("RemoveMapping", 1)
	unmap := spawn(t, "munmap", func() error { return g.MUnmap(g.ctx, g.base, pageSize) })
	p.wait()
	for _, a := range []hostarch.Addr{g.top.Start, g.base + pageSize, g.top.End} {
		elsewhere := spawn(t, "an access elsewhere", func() error {
			g.fault(a, hostarch.Read)
			g.CopyIn(g.ctx, a, make([]byte, 8), usermem.IOOpts{})
			g.EnsurePMAsExist(g.ctx, a, 8, usermem.IOOpts{})
			return nil
		})
		elsewhere.mustSucceed()
	}
	var waiting []*task
	for _, n := range []int{3, 9, 6} {
		k := spawn(t, "fault", func() error { return g.fault(g.below(n), hostarch.Write) })
		k.mustBlock()
		waiting = append(waiting, k)
	}
	p.resume()
	unmap.mustSucceed()
	for _, k := range waiting {
		k.mustSucceed()
	}
	g.mustHaveGrown("after that", 9)
}

// Whoever touches memory below gets it, whatever is unmapped meanwhile.
func TestGrowthRacesUnmapping(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite, onRealMemory)
	seed := testSeed(t)
	var threads []*task
	for i := range 3 {
		rng := rand.New(rand.NewSource(seed + int64(i)))
		threads = append(threads, spawn(t, "thread", func() error {
			for range 300 {
				if err := g.store(g.below(rng.Intn(200)), []byte{1}); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	rng := rand.New(rand.NewSource(seed + 3))
	for !threads[0].returned() || !threads[1].returned() || !threads[2].returned() {
		n := 1 + rng.Intn(200)
		g.mustUnmap(g.below(n), uint64(1+rng.Intn(n))*pageSize)
	}
	for _, k := range threads {
		k.mustSucceed()
	}
	g.check()
}

// Several who touch the same hole at the same moment all get it, whoever makes it grow: by I/O too.
func TestAccessesThatMeetMakeItGrow(t *testing.T) {
	g := newGrowing(t, hostarch.ReadWrite, onRealMemory)
	for round := range 1000 {
		at := g.below(3)
		begin := make(chan struct{})
		var threads []*task
		for _, access := range []func() error{
			func() error { return g.fault(at, hostarch.Write) },
			func() error { _, err := g.CopyOut(g.ctx, at, make([]byte, 8), usermem.IOOpts{}); return err },
			func() error { _, err := g.EnsurePMAsExist(g.ctx, at, 8, usermem.IOOpts{}); return err },
		} {
			threads = append(threads, spawn(t, "access", func() error {
				<-begin
				return access()
			}))
		}
		close(begin)
		for i, k := range threads {
			if err := k.wait(); err != nil {
				t.Fatalf("round %d: access %d: %v", round, i, err)
			}
		}
		g.mustUnmap(at, 3*pageSize)
	}
	g.check()
}
