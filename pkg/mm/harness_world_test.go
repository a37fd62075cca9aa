package mm

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is everything that a test has made with this harness. When the test
// ends, it is taken down in order, and what is left over fails the test.
type world struct {
	t   testing.TB
	key int

	mu    sync.Mutex
	end   []func() // run first, last added first
	last  []func() // run last, if the test has not failed
	tasks []*task
	mms   []*testMM
	sets  []*sharedSet
	maps  []*testMappable
	ids   []*testIdentity
	files []*testFile
	names map[any]string
}

var worlds struct {
	mu   sync.Mutex
	of   map[testing.TB]*world
	list []*world
}

// worldOf returns t's world.
func worldOf(t testing.TB) *world {
	worlds.mu.Lock()
	defer worlds.mu.Unlock()
	if w := worlds.of[t]; w != nil {
		return w
	}
	w := &world{t: t, key: len(worlds.list), names: make(map[any]string)}
	if worlds.of == nil {
		worlds.of = make(map[testing.TB]*world)
	}
	worlds.of[t] = w
	worlds.list = append(worlds.list, w)
	t.Cleanup(w.takeDown)
	return w
}

// worldNumber returns the world with the given key, for objects that come back
// from a checkpoint.
func worldNumber(key int) *world {
	worlds.mu.Lock()
	defer worlds.mu.Unlock()
	return worlds.list[key]
}

// atEnd makes f run when the test ends, before anything is taken down.
func (w *world) atEnd(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end = append(w.end, f)
}

// atLast makes f run when everything is taken down, unless the test failed.
func (w *world) atLast(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = append(w.last, f)
}

// name gives obj a name for messages: kind#number.
func (w *world) name(obj any, kind string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := fmt.Sprintf("%s#%d", kind, len(w.names)+1)
	w.names[obj] = name
	return name
}

// enlist makes obj, which is *label, a part of its world. If *label is empty, it
// gets a name; otherwise it comes back from a checkpoint, and takes the place of
// the one of that name.
func enlist[T comparable](w *world, list *[]T, obj T, label *string, kind string) {
	if *label == "" {
		*label = w.name(obj, kind)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[obj] = *label
	for i, o := range *list {
		if w.names[o] == *label {
			(*list)[i] = obj
			return
		}
	}
	*list = append(*list, obj)
}

// nameOf returns obj's name.
func (w *world) nameOf(obj any) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name, ok := w.names[obj]; ok {
		return name
	}
	if s, ok := obj.(*pendingSpace); ok {
		return "pending space of " + w.names[s.mm]
	}
	return fmt.Sprintf("%T", obj)
}

// takeDown ends the test's world. After a failure it only lets paused calls go:
// locks may be held, and what would be reported follows from the failure.
func (w *world) takeDown() {
	for i := len(w.end) - 1; i >= 0; i-- {
		w.end[i]()
	}
	for _, k := range w.tasks {
		if !w.t.Failed() {
			k.wait()
		}
	}
	if w.t.Failed() {
		return
	}
	for _, m := range w.mms {
		m.takeDown()
	}
	for _, s := range w.sets {
		s.takeDown()
	}
	for _, id := range w.ids {
		id.takeDown()
	}
	for _, f := range w.files {
		f.takeDown()
	}
	for _, f := range w.last {
		f()
	}
}

// patience is how long anything may take that should happen at once. It is not
// waited for unless a test is about to fail.
const patience = 30 * time.Second

// await waits until c is closed.
func await(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
		return
	case <-time.After(patience):
		t.Fatalf("%s did not happen within %v\n\n%s", what, patience, allStacks())
	}
}

// allStacks returns the stacks of all goroutines.
func allStacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// hooks lets tests interfere with calls to an object. Calls are known by the name
// of the method, except that the AddressSpace says "MapFile" and "Unmap" of its
// two.
type hooks struct {
	t    testing.TB
	name string

	mu     sync.Mutex
	counts map[string]int
	armed  []*hook
}

// hook runs at certain calls.
type hook struct {
	op    string
	match func(arg any) bool
	skip  int // matching calls to let pass
	once  bool
	run   func(arg any) error
}

// on makes run be called at the n-th matching call of op from now on, counting
// from 1, or at all of them if n is 0. It is called before the object does
// anything. If it returns an error, the call fails with it, if it can fail.
// What arg is depends on op; match may be nil.
func (h *hooks) on(op string, n int, match func(arg any) bool, run func(arg any) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed = append(h.armed, &hook{op: op, match: match, skip: max(n-1, 0), once: n != 0, run: run})
}

// fail makes the n-th call of op from now on return err.
func (h *hooks) fail(op string, n int, err error) {
	h.on(op, n, nil, func(any) error { return err })
}

// pauseAt stops whoever makes the n-th call of op from now on, until resume is
// called.
func (h *hooks) pauseAt(op string, n int) *pause {
	return h.pauseIf(op, n, nil)
}

// pauseIf is pauseAt for calls that match.
func (h *hooks) pauseIf(op string, n int, match func(arg any) bool) *pause {
	p := &pause{t: h.t, what: h.name + "." + op, reached: make(chan struct{}), go_: make(chan struct{})}
	h.on(op, n, match, func(arg any) error {
		p.hold(arg)
		return nil
	})
	worldOf(h.t).atEnd(p.resume)
	return p
}

// count returns how often op was called.
func (h *hooks) count(op string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[op]
}

// hit is called by the object at each call.
func (h *hooks) hit(op string, arg any) error {
	h.mu.Lock()
	if h.counts == nil {
		h.counts = make(map[string]int)
	}
	h.counts[op]++
	var run []func(any) error
	for i := 0; i < len(h.armed); i++ {
		k := h.armed[i]
		if k.op != op || k.match != nil && !k.match(arg) {
			continue
		}
		if k.skip > 0 {
			k.skip--
			continue
		}
		run = append(run, k.run)
		if k.once {
			h.armed = append(h.armed[:i], h.armed[i+1:]...)
			i--
		}
	}
	h.mu.Unlock()
	for _, f := range run {
		if err := f(arg); err != nil {
			return err
		}
	}
	return nil
}

// pause is a call that is stopped, or will be.
type pause struct {
	t       testing.TB
	what    string
	arg     any // what the call was given, once it is reached
	reached chan struct{}
	go_     chan struct{}
	once    sync.Once
}

func (p *pause) hold(arg any) {
	p.arg = arg
	close(p.reached)
	<-p.go_
}

// wait waits until the call is made and stopped.
func (p *pause) wait() {
	p.t.Helper()
	await(p.t, p.reached, p.what)
}

// resume lets the call go on, now or when it comes.
func (p *pause) resume() {
	p.once.Do(func() { close(p.go_) })
}

// task is a goroutine of a test.
type task struct {
	t    testing.TB
	name string
	gid  string
	done chan struct{}
	err  error
}

// spawn runs f in a goroutine. The test does not end before it does.
func spawn(t testing.TB, name string, f func() error) *task {
	w := worldOf(t)
	k := &task{t: t, name: name, done: make(chan struct{})}
	started := make(chan struct{})
	w.mu.Lock()
	w.tasks = append(w.tasks, k)
	w.mu.Unlock()
	go func() {
		defer close(k.done)
		k.gid = goroutineID()
		close(started)
		k.err = f()
	}()
	<-started
	return k
}

// wait waits until the task has returned, and returns what it did.
func (k *task) wait() error {
	k.t.Helper()
	await(k.t, k.done, "the end of "+k.name)
	return k.err
}

// mustSucceed waits until the task has returned nil.
func (k *task) mustSucceed() {
	k.t.Helper()
	if err := k.wait(); err != nil {
		k.t.Fatalf("%s: %v", k.name, err)
	}
}

// returned says whether the task has returned.
func (k *task) returned() bool {
	select {
	case <-k.done:
		return true
	default:
		return false
	}
}

// mustBlock waits until the task waits for a lock or channel. It fails if the
// task returns instead, or is stopped by a pause.
//
// A task that waits for what a paused one holds keeps waiting, so this is not a
// matter of timing: it is seen in the same place a number of times only to tell
// it from one that a lock has delayed on its way.
func (k *task) mustBlock() {
	k.t.Helper()
	if !k.blocks() {
		k.t.Fatalf("%s returned (%v); it should have waited", k.name, k.err)
	}
}

// blocks waits until the task has returned or waits as for mustBlock, and returns
// whether it waits.
func (k *task) blocks() bool {
	k.t.Helper()
	var last string
	same := 0
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if k.returned() {
			return false
		}
		state, stack := goroutineState(k.gid)
		if isWaiting(state) && strings.Contains(stack, "(*pause).hold") {
			k.t.Fatalf("%s was stopped by a pause; it should have waited for others\n%s", k.name, stack)
		}
		switch {
		case !isWaiting(state):
			same = 0
		case stack != last:
			last, same = stack, 1
		default:
			if same++; same == 8 {
				return true
			}
		}
	}
	k.t.Fatalf("%s neither waits nor returns\n%s", k.name, allStacks())
	return false
}

// goroutineID returns the number of the calling goroutine.
func goroutineID() string {
	buf := make([]byte, 64)
	fields := strings.Fields(string(buf[:runtime.Stack(buf, false)]))
	return fields[1]
}

// goroutineState returns the wait reason and the stack of a goroutine.
func goroutineState(gid string) (state, stack string) {
	for _, s := range strings.Split(allStacks(), "\n\n") {
		head, frames, _ := strings.Cut(s, "\n")
		rest, ok := strings.CutPrefix(head, "goroutine "+gid+" [")
		if !ok {
			continue
		}
		state, _, _ = strings.Cut(rest, "]")
		state, _, _ = strings.Cut(state, ",")
		return state, frames
	}
	return "", ""
}

// isWaiting returns whether a goroutine in this state needs another one to go
// on.
func isWaiting(state string) bool {
	switch state {
	case "chan receive", "chan send", "select", "semacquire", "sync.Cond.Wait",
		"sync.Mutex.Lock", "sync.RWMutex.Lock", "sync.RWMutex.RLock", "sync.WaitGroup.Wait":
		return true
	}
	return false
}

// testSeed returns the seed for a random test and prints it. MM_SEED overrides
// it.
func testSeed(t testing.TB) int64 {
	t.Helper()
	seed := time.Now().UnixNano()
	if s := os.Getenv("MM_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatalf("MM_SEED=%s: %v", s, err)
		}
	}
	t.Logf("to repeat: MM_SEED=%d", seed)
	return seed
}
