package mm

import (
	"fmt"
	"runtime/debug"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// modelDriver runs one sequence of operations on MemoryManagers and on their
// models, and compares them after each. The sequence is made of bytes, so that a
// fuzzer can make it shorter. Where the bytes end, the sequence ends.
type modelDriver struct {
	t     testing.TB
	data  []byte
	w     *modelWorld
	procs []*modelProc
	files []*modelFile

	pins   map[int]modelPin
	groups []modelPins
	ids    int

	// token is the last number written to memory: each is different.
	token uint32

	log  []string
	fail *modelFault
}

// modelPin is where a page lies that Pin has returned.
type modelPin struct{ off uint64 }

// modelPins is what one call of Pin returned.
type modelPins struct {
	prs []PinnedRange
	ids []int
}

// modelFault is an error that the world returns at some call in the operation.
type modelFault struct {
	on    string
	n     int // at which call
	err   error
	fired bool
}

// modelOp is a kind of operation. weight is how often it comes, compared with
// others.
type modelOp struct {
	weight int
	run    func(d *modelDriver, p *modelProc)
}

var modelOps = []modelOp{
	{14, (*modelDriver).opMmap},
	{6, (*modelDriver).opMunmap},
	{7, (*modelDriver).opMprotect},
	{10, (*modelDriver).opMremap},
	{4, (*modelDriver).opMlock},
	{1, (*modelDriver).opMlockall},
	{5, (*modelDriver).opDecommit},
	{2, (*modelDriver).opAdvise},
	{3, (*modelDriver).opBrk},
	{3, (*modelDriver).opFork},
	{1, (*modelDriver).opExit},
	{1, (*modelDriver).opRestore},
	{8, (*modelDriver).opLoad},
	{10, (*modelDriver).opStore},
	{5, (*modelDriver).opCopyIn},
	{7, (*modelDriver).opCopyOut},
	{2, (*modelDriver).opVec},
	{2, (*modelDriver).opWord},
	{3, (*modelDriver).opZeroOut},
	{6, (*modelDriver).opFile},
	{3, (*modelDriver).opPin},
	{2, (*modelDriver).opUnpin},
	{3, (*modelDriver).opPinnedWrite},
}

// modelOpOf maps a byte to an operation.
var modelOpOf = func() (table []modelOp) {
	for _, op := range modelOps {
		for range op.weight {
			table = append(table, op)
		}
	}
	return table
}()

// runModel runs the sequence that data stands for.
func runModel(t *testing.T, data []byte) {
	d := newModelDriver(t, data)
	defer func() {
		// Locks may be held, so a panic must not get to who cleans up.
		if r := recover(); r != nil {
			t.Fatalf("the operation after the last in the sequence panicked: %v\n%s", r, debug.Stack())
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the sequence was:\n%s\nto make it shorter, put this into testdata/fuzz/FuzzOperations and fuzz:\ngo test fuzz v1\n[]byte(%q)", lines(d.log), data)
		}
	})
	for len(d.data) != 0 {
		op := modelOpOf[int(d.next())%len(modelOpOf)]
		p := d.procs[int(d.next())%len(d.procs)]
		d.arm()
		op.run(d, p)
		d.disarm()
		d.compare()
	}
	for len(d.groups) != 0 {
		d.unpin(0)
	}
}

// newModelDriver makes the world that the first bytes of data ask for.
func newModelDriver(t testing.TB, data []byte) *modelDriver {
	d := &modelDriver{t: t, data: data, w: &modelWorld{pages: 1, topDown: true}, pins: make(map[int]modelPin)}
	config, limit := d.next(), d.next()
	if config&1 != 0 {
		// Four cells are a huge page and a piece of host work.
		d.w.pages = pieceSize / pageSize / 4
	}
	mods := []func(*mmConfig){onRealMemory}
	if config&2 != 0 {
		mods = append(mods, withASIO)
	}
	if config&4 != 0 {
		d.w.topDown = false
	}
	if config&8 != 0 {
		mods = append(mods, withFile(newTestFile(t, withHugePages)))
	}
	if config&16 != 0 {
		mods = append(mods, withMapUnit(64<<10))
	}
	m := newTestMM(t, mods...)
	m.layout = arch.MmapLayout{MinAddr: m.base, BottomUpBase: m.base, DefaultDirection: arch.MmapTopDown, MaxStackRand: pageSize}
	if !d.w.topDown {
		m.layout.DefaultDirection = arch.MmapBottomUp
	}
	m.layout.MaxAddr = m.base + hostarch.Addr(modelCells*d.w.cellSize())
	m.layout.TopDownBase = m.layout.MaxAddr

	// Three out of four times a limit is out of reach.
	set := func(which limits.LimitType, bits byte, n uint64) uint64 {
		if bits&3 != 3 {
			n = 1 << 40
		}
		n *= d.w.cellSize()
		m.ctx.limit(which, n)
		return n
	}
	d.w.limitAS = set(limits.AS, limit, 40)
	d.w.limitData = set(limits.Data, limit>>2, 16)
	d.w.limitLocked = set(limits.MemoryLocked, limit>>4, uint64(limit>>6)*4)
	d.w.limitStack = set(limits.Stack, config>>5, 12)
	d.logf("cells of %d pages, asio=%t, top down=%t, huge pages=%t, map unit %#x, limits: as %d, data %d, locked %d, stack %d cells",
		d.w.pages, m.p.asio, d.w.topDown, m.mf.HugepagesEnabled(), m.p.mapUnit, d.w.limitAS/d.w.cellSize(), d.w.limitData/d.w.cellSize(), d.w.limitLocked/d.w.cellSize(), d.w.limitStack/d.w.cellSize())

	s := &modelSpace{w: d.w, brkStart: 48}
	d.w.spaces = []*modelSpace{s}
	d.procs = []*modelProc{{m, s}}
	m.BrkSetup(m.ctx, d.procs[0].addr(s.brkStart))
	for i := range 2 {
		f := &modelFile{size: 8 + 4*i}
		f.set = newSharedSet(t, m.mf, uint64(f.size)*d.w.cellSize())
		f.maps = []*testMappable{f.set.newMappable(), f.set.newMappable()}
		if i == 1 {
			f.maps[0].step = 2 * d.w.cellSize()
			f.maps[1].perms = hostarch.Read // writing needs another Translate
		}
		d.files = append(d.files, f)
	}
	d.w.files = d.files
	return d
}

// next returns the next byte, or 0.
func (d *modelDriver) next() byte {
	if len(d.data) == 0 {
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

// choose returns a number below n.
func (d *modelDriver) choose(n int) int { return int(d.next()) % n }

// chance is true once in n times.
func (d *modelDriver) chance(n int) bool { return d.choose(n) == n-1 }

// span returns a range of cells, which may reach out of the address space.
func (d *modelDriver) span(most int) (start, n int) {
	return d.choose(modelCells), 1 + d.choose(most)
}

func (d *modelDriver) logf(format string, args ...any) {
	d.log = append(d.log, fmt.Sprintf(format, args...))
}

// say logs an operation of p with what it returned.
func (d *modelDriver) say(p *modelProc, format string, args ...any) {
	line := p.name + ": " + fmt.Sprintf(format, args...)
	if d.fail != nil {
		line += fmt.Sprintf("   (%s #%d fails: %t)", d.fail.on, d.fail.n, d.fail.fired)
	}
	d.logf("%s", line)
}

// arm makes something fail in the next operation, now and then.
func (d *modelDriver) arm() {
	d.fail = nil
	b := d.next()
	if b < 224 {
		return
	}
	d.fail = &modelFault{on: []string{"AddMapping", "CopyMapping", "Translate", "MapFile"}[b%4], n: 1 + int(b>>2)%3, err: linuxerr.EIO}
	n := 0
	run := func(any) error {
		if n++; n != d.fail.n {
			return nil
		}
		d.fail.fired = true
		return d.fail.err
	}
	for _, h := range d.hooks() {
		h.on(d.fail.on, 0, nil, run)
	}
}

// disarm ends that.
func (d *modelDriver) disarm() {
	for _, h := range d.hooks() {
		h.mu.Lock()
		h.armed = nil
		h.mu.Unlock()
	}
}

// hooks returns the hooks of everything that can be made to fail.
func (d *modelDriver) hooks() []*hooks {
	var all []*hooks
	for _, f := range d.files {
		for _, m := range f.maps {
			all = append(all, &m.hooks)
		}
	}
	for _, p := range d.procs {
		all = append(all, &p.as.hooks)
	}
	return all
}

// fired returns the error if it was returned at a call of op, the first of the
// operation if first is set.
func (d *modelDriver) fired(op string) bool {
	return d.fail != nil && d.fail.fired && strings.HasPrefix(d.fail.on, op)
}

// refusal returns what the n-th call of op returns.
func (d *modelDriver) refusal(op string, n int) error {
	if d.fail != nil && d.fail.on == op && d.fail.n == n {
		return d.fail.err
	}
	return nil
}

// mustAgree fails the test if an operation did not return what the model says.
func (d *modelDriver) mustAgree(got, want error) {
	d.t.Helper()
	if !sameError(got, want) {
		d.t.Fatalf("%s\nreturned error %v; should be %v", d.log[len(d.log)-1], got, want)
	}
}

// compare fails the test if anything is different from the model.
func (d *modelDriver) compare() {
	d.t.Helper()
	for _, p := range d.procs {
		if err := p.validate(); err != nil {
			d.t.Fatalf("after %s\n%s: %v", d.log[len(d.log)-1], p.name, err)
		}
		if err := p.checkHost(); err != nil {
			d.t.Fatalf("after %s\n%s: %v", d.log[len(d.log)-1], p.name, err)
		}
		if err := p.compare(); err != nil {
			d.t.Fatalf("after %s\n%s: %v", d.log[len(d.log)-1], p.name, err)
		}
		if err := p.comparePins(d.pins); err != nil {
			d.t.Fatalf("after %s\n%s: %v", d.log[len(d.log)-1], p.name, err)
		}
	}
	for _, f := range d.files {
		if err := d.compareFile(f); err != nil {
			d.t.Fatalf("after %s\n%v", d.log[len(d.log)-1], err)
		}
	}
}

// newToken returns a number that is nowhere in memory.
func (d *modelDriver) newToken() uint32 {
	d.token++
	return d.token
}

// modelPerms are permissions that are asked for.
var modelPerms = []hostarch.AccessType{
	hostarch.ReadWrite, hostarch.ReadWrite, hostarch.ReadWrite, hostarch.Read,
	hostarch.NoAccess, hostarch.Write, hostarch.ReadExecute, hostarch.AnyAccess,
}

// lockModes are lock modes that are asked for.
var modelLocks = []memmap.MLockMode{memmap.MLockNone, memmap.MLockEager, memmap.MLockLazy}
