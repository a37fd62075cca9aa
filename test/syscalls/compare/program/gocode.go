package program

import (
	"fmt"
	"math"
	"strings"
)

// GoCode is the program as statements of a Go test that is written with kit. The outcome of the last step is in the
// variable r, if HasOutcome.
func (p *Program) GoCode() string {
	c := coder{declared: map[string]bool{}, last: len(p.Steps) - 1}
	for i, s := range p.Steps {
		c.step(i, s)
	}
	return c.prologue(p) + c.body.String()
}

// HasOutcome reports whether the code of a step has an outcome: a kit.Result, or of an access a kit.Access.
func (s Step) HasOutcome() bool {
	switch s.Op {
	case Fill, Fork, Exit, Park, Limit:
		return false
	}
	return true
}

// A coder writes Go.
type coder struct {
	body     strings.Builder
	last     int             // step
	declared map[string]bool // variables that exist
	heap     bool
	words    bool // memory for arguments, which all processes share
	used     bool // the sizes in /proc
}

func (c *coder) line(format string, args ...any) {
	fmt.Fprintf(&c.body, "\t"+format+"\n", args...)
}

// prologue declares what the steps use.
func (c *coder) prologue(p *Program) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "\t"+format+"\n", args...) }
	line("a := kit.NewArena(t, %d)", ArenaPages)
	if c.heap {
		line("heap := (kit.Me.Brk(0) + %d) &^ %d", PageSize-1, PageSize-1)
	}
	if p.UsesHandle(Disk) || p.UsesHandle(DiskRead) {
		line("path := kit.Dirs()[0].NamedFile(t, %d)", FilePages)
	}
	for _, f := range []struct {
		handle Handle
		text   string
	}{
		{Disk, "kit.Open(t, path, unix.O_RDWR)"}, {DiskRead, "kit.Open(t, path, unix.O_RDONLY)"},
		{Tmpfs, fmt.Sprintf("kit.Dirs()[1].File(t, %d)", FilePages)},
		{Memfd, fmt.Sprintf("kit.Memfd(t, %d, unix.MFD_ALLOW_SEALING)", FilePages)}, {Sealed, fmt.Sprintf("kit.Memfd(t, %d, 0)", FilePages)},
		{Zero, `kit.Open(t, "/dev/zero", unix.O_RDWR)`},
	} {
		if p.UsesHandle(f.handle) {
			line("%s := %s", KindHandle.Text(int64(f.handle)), f.text)
		}
	}
	if p.UsesHandle(PipeRead) || p.UsesHandle(PipeWrite) {
		line("piperead, pipewrite := kit.Pipe(t)")
		line("_, _ = unix.SetNonblock(piperead, true), unix.SetNonblock(pipewrite, true)")
	}
	if c.words {
		line("words := kit.Pointer(&kit.Shared(t, kit.PageSize)[0])")
		line("put := func(at uintptr, values ...uintptr) uintptr {")
		line("\tfor i, v := range values {")
		line("\t\tkit.Me.Store64(words+at+uintptr(8*i), uint64(v))")
		line("\t}")
		line("\treturn words + at")
		line("}")
	}
	if c.used {
		line("used := func(who *kit.Actor, field string) (kb uint64) {")
		line("\tfmt.Sscan(kit.Status(t, who, field), &kb)")
		line("\treturn kb << 10")
		line("}")
	}
	for _, actor := range []Actor{Thread1, Thread2} {
		if p.Uses(actor) {
			line("%v := kit.NewThread(t)", actor)
		}
	}
	return b.String()
}

// numbers are the system calls of steps whose arguments are the step's.
var numbers = map[*Op]string{
	Munmap: "MUNMAP", Mprotect: "MPROTECT", Brk: "BRK", Madvise: "MADVISE", Mlock: "MLOCK", Mlock2: "MLOCK2", Munlock: "MUNLOCK",
	Mlockall: "MLOCKALL", Munlockall: "MUNLOCKALL", Msync: "MSYNC", Ftruncate: "FTRUNCATE", Fallocate: "FALLOCATE", Pread: "PREAD64",
	Pwrite: "PWRITE64", Read: "READ", Write: "WRITE", Shmdt: "SHMDT",
}

func (c *coder) step(i int, s Step) {
	who, args := c.actor(s.Actor), c.args(s)
	c.line("// %v", s)
	// outcome is the expression of a call or an access. Its value goes into a variable of the program, if that has a name.
	outcome := func(into, expression string) {
		switch {
		case i == c.last:
			c.line("r := %s", expression)
			if into != "" {
				c.set(into, "r.Value")
			}
		case into != "":
			c.set(into, expression+".Value")
		default:
			c.line("%s", expression)
		}
	}
	call := func(into, number string, args ...string) {
		outcome(into, fmt.Sprintf("%s.Call(%s)", who, strings.Join(append([]string{"unix.SYS_" + number}, args...), ", ")))
	}
	if number, ok := numbers[s.Op]; ok {
		call("", number, args...)
		return
	}
	switch s.Op {
	case Mmap:
		call(args[6], "MMAP", args[:6]...)
	case Mremap:
		call(args[5], "MREMAP", args[:5]...)
	case Mincore:
		call("", "MINCORE", args[0], args[1], c.put(0))
	case Load, Load64, Exec:
		outcome("", fmt.Sprintf("%s.%s(%s)", who, s.Op.goName(), args[0]))
	case Store, Store64:
		outcome("", fmt.Sprintf("%s.%s(%s, %s)", who, s.Op.goName(), args[0], c.stored(s)))
	case Fill:
		c.line("for i := uintptr(0); i < %s; i += kit.Len(1) {", args[1])
		c.line("\t%s.Store(%s+i, byte(%s+i/kit.Len(1)))", who, args[0], args[2])
		c.line("}")
	default:
		c.special(s, who, args, call)
	}
}

func (c *coder) special(s Step, who string, args []string, call func(into, number string, args ...string)) {
	switch s.Op {
	case Readv, Writev:
		call("", strings.ToUpper(s.Op.Name), args[0], c.put(0, args[1:]...), "2")
	case VMRead, VMWrite:
		number := map[*Op]string{VMRead: "PROCESS_VM_READV", VMWrite: "PROCESS_VM_WRITEV"}[s.Op]
		call("", number, "uintptr("+args[0]+".Pid())", c.put(0, args[1:3]...), "1", c.put(16, args[3:]...), "1", "0")
	case Seal:
		call("", "FCNTL", args[0], "unix.F_ADD_SEALS", args[1])
	case Shmget:
		call(args[0], "SHMGET", "unix.IPC_PRIVATE", args[1], "unix.IPC_CREAT|0o700")
	case Shmat:
		call(args[3], "SHMAT", args[:3]...)
	case Shmrm, Shmstat:
		command := map[*Op]string{Shmrm: "unix.IPC_RMID", Shmstat: "unix.IPC_STAT"}[s.Op]
		call("", "SHMCTL", args[0], command, c.put(0))
	case Fork:
		name := Actor(s.Args[0]).String()
		c.set(name, map[bool]string{true: "kit.Fork(t)", false: who + ".Fork(t)"}[who == "kit.Me"])
	case Exit:
		c.line("%s.Exit(t, 0)", who)
	case FutexWait:
		call("", "FUTEX", args[0], "kit.FutexWait|"+args[2], args[1], c.put(0, "0", "1"))
	case FutexWake:
		call("", "FUTEX", args[0], "kit.FutexWake|"+args[2], args[1])
	case Park:
		c.line("%s.Start(unix.SYS_FUTEX, %s, kit.FutexWait|%s, %s)", who, args[0], args[2], args[1])
		c.line("%s.AwaitBlocked(t)", who)
	case Requeue:
		call("", "FUTEX", args[0], "3|"+args[4], args[1], args[2], args[3])
	case AIOSetup:
		call("", "IO_SETUP", "4", c.put(0, "0"))
		c.set(args[0], "uintptr(kit.Me.Load64(words).Value)")
		c.set(args[1], args[0])
	case AIOSubmit:
		// An iocb, behind it a pointer to it, and behind that room for the event.
		iocb := c.put(0, "0", "0", args[1]+"|"+args[2]+"<<32", args[3], args[4], args[5], "0", "0", "words")
		call("", "IO_SUBMIT", args[0], "1", iocb+"+64")
		c.line("%s.Call(unix.SYS_IO_GETEVENTS, %s, 0, 1, words+256, 0)", who, args[0])
	case AIOEvents:
		c.words = true
		call("", "IO_GETEVENTS", args[0], "0", "1", "words+256", "0")
	case AIODestroy:
		call("", "IO_DESTROY", args[0])
	case Limit:
		c.limit(s, who)
	}
}

// limit sets a soft limit. What it is relative to is not the same as in the run: the test's own process is larger.
func (c *coder) limit(s Step, who string) {
	field := map[string]string{"as": "VmSize", "data": "VmData"}[KindLimit.Text(s.Args[0])]
	amount := fmt.Sprint(uint64(s.Args[1]))
	switch {
	case s.Args[1] < 0:
		amount = "unix.RLIM_INFINITY"
	case field != "":
		c.used = true
		amount = fmt.Sprintf("used(%s, %q)+%s", who, field, amount)
	}
	c.line("%s.SetLimit(%s, %s, unix.RLIM_INFINITY)", who, KindLimit.constant(s.Args[0]), amount)
}

// set gives a variable a value, and declares it if it is new.
func (c *coder) set(name, value string) {
	operator := "="
	if !c.declared[name] {
		operator = ":="
		c.declared[name] = true
	}
	c.line("%s %s %s", name, operator, value)
	if operator == ":=" {
		c.line("_ = %s", name)
	}
}

// put is an expression that stores words and is their address.
func (c *coder) put(at int, values ...string) string {
	c.words = true
	return fmt.Sprintf("put(%s)", strings.Join(append([]string{fmt.Sprint(at)}, values...), ", "))
}

func (c *coder) stored(s Step) string {
	if s.Op == Store64 {
		return fmt.Sprintf("%#x", uint64(s.Args[1])*0x0101010101010101)
	}
	return fmt.Sprintf("%#x", byte(s.Args[1]))
}

func (c *coder) actor(a Actor) string {
	if a == Main {
		return "kit.Me"
	}
	if a.IsChild() && !c.declared[a.String()] {
		c.set(a.String(), "kit.Me") // nobody forked it: the step did nothing
	}
	return a.String()
}

// args are the arguments as Go expressions, of type uintptr but for names of variables.
func (c *coder) args(s Step) []string {
	var all []string
	for i, kind := range s.Op.Args {
		all = append(all, c.arg(kind, s.Args[i], s.Op))
	}
	return all
}

func (c *coder) arg(kind *Kind, v int64, op *Op) string {
	switch kind {
	case KindAddr:
		return c.address(Address(v))
	case KindLen, KindOffset:
		if v >= 0 && v < 1<<40 && v%PageSize == 0 {
			return fmt.Sprintf("kit.Len(%d)", v/PageSize)
		}
	case KindHandle:
		if v < 0 {
			return "^uintptr(0)"
		}
		return "uintptr(" + kind.Text(v) + ")"
	case KindSlot, KindSegment, KindContext:
		name := kind.Text(v)
		// What is set by the step itself needs no value before.
		if sets := op == Mmap || op == Mremap || op == Shmget || op == Shmat && kind == KindSlot || op == AIOSetup; !sets && !c.declared[name] {
			c.set(name, "^uintptr(0)")
		}
		return name
	case KindActor:
		if op == Fork {
			return ""
		}
		return c.actor(Actor(v))
	}
	if text := kind.constant(v); text != "" {
		return text
	}
	if v < 0 || v > math.MaxInt32 {
		return fmt.Sprintf("%#x", uint64(v))
	}
	return fmt.Sprint(v)
}

func (c *coder) address(a Address) string {
	distance := a.Distance()
	base := ""
	switch {
	case a.Region() == Absolute:
		return fmt.Sprintf("%#x", uint64(distance))
	case a.Region() == Arena:
		page := distance >> 12
		base, distance = fmt.Sprintf("a.Page(%d)", page), distance-page*PageSize
	case a.Region() == Heap:
		c.heap, base = true, "heap"
	default:
		base = KindSlot.Text(int64(a.Slot()))
		if !c.declared[base] {
			c.set(base, "^uintptr(0)")
		}
	}
	if distance == 0 {
		return base
	}
	return fmt.Sprintf("%s%+d", base, distance)
}

// constant is a value by names of package unix, or "" if it has none.
func (k *Kind) constant(v int64) string {
	var words []string
	for _, n := range k.names {
		if n.constant == "" || !k.flags && n.value != v || k.flags && v&n.value != n.value {
			continue
		}
		name := n.constant
		if !strings.HasPrefix(name, "0x") {
			name = "unix." + name
		}
		words = append(words, name)
		v &^= n.value
		if !k.flags {
			break
		}
	}
	if len(words) > 0 && v != 0 && k.flags {
		words = append(words, fmt.Sprintf("%#x", v))
	}
	return strings.Join(words, "|")
}

// goName is what kit calls an access.
func (o *Op) goName() string {
	return map[*Op]string{Load: "Load", Load64: "Load64", Store: "Store", Store64: "Store64", Exec: "Exec"}[o]
}
