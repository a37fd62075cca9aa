package main

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
)

// Where the memory that workers need is: beyond what Go takes for its heap. Programs have nothing to do there.
const (
	controlBase  = 0x4080_1000_0000
	controlSpace = 64 << 10 // for each actor
	stackBase    = 0x4080_1100_0000
	stackSpace   = 128 << 10 // for each actor, with a gap
	stackSize    = 64 << 10
	bufferBase   = 0x4080_1200_0000 // what files hold in the beginning
	bufferSize   = program.FilePages * pageSize
)

// zygoteSlot is the place of the zygote's control, after those of the actors.
const zygoteSlot = int(program.Actors)

// A zygote is the worker from which all programs' first processes are forked. Go's runtime is not only
// asleep in it, it is gone, so programs begin with little memory, and always with the same.
type zygote struct {
	actor
}

func control_(slot int) *control { return controlAt(controlBase + uintptr(slot)*controlSpace) }

func stackTop(slot int) uintptr { return stackBase + uintptr(slot)*stackSpace + stackSize }

func newZygote() (*zygote, error) {
	if err := prepareMemory(); err != nil {
		return nil, err
	}
	z := &zygote{actor{control: control_(zygoteSlot)}}
	pid, err := forkWorker(z.control, stackTop(zygoteSlot))
	if err != nil {
		return nil, fmt.Errorf("fork: %w", err)
	}
	z.process = &process{leader: &z.actor, pid: pid}
	for _, prepare := range []func() error{z.endWithParent, z.giveUp, z.handleSignals, z.setLimit, z.dropCapability} {
		if err := prepare(); err != nil {
			return nil, err
		}
	}
	return z, nil
}

func prepareMemory() error {
	if unsafe.Sizeof(control{}) > controlSpace {
		panic("control does not fit")
	}
	const count = uintptr(program.Actors) + 1
	if err := mapAt(controlBase, count*controlSpace, unix.MAP_SHARED); err != nil {
		return err
	}
	for slot := range count {
		if err := mapAt(stackBase+slot*stackSpace, stackSize, unix.MAP_PRIVATE); err != nil {
			return err
		}
	}
	if err := mapAt(bufferBase, bufferSize, unix.MAP_SHARED); err != nil {
		return err
	}
	start := uintptr(bufferBase)
	copy(unsafe.Slice(*(**byte)(unsafe.Pointer(&start)), bufferSize), fileContents())
	return nil
}

// fileContents are the bytes of files: 'A' all over the first page, 'B' all over the second, and so on.
func fileContents() []byte {
	data := make([]byte, bufferSize)
	for i := range data {
		data[i] = 'A' + byte(i/pageSize)
	}
	return data
}

func mapAt(addr, length uintptr, flags int) error {
	_, _, e := unix.Syscall6(unix.SYS_MMAP, addr, length, unix.PROT_READ|unix.PROT_WRITE, uintptr(flags|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE), ^uintptr(0), 0)
	if e != 0 {
		return fmt.Errorf("mmap at %#x: %w", addr, e)
	}
	return nil
}

// endWithParent sees to it that the worker does not outlive the engine.
func (a *actor) endWithParent() error {
	_, err := a.call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
	return err
}

// giveUp unmaps what is Go's, and the stack that the program began on.
func (z *zygote) giveUp() error {
	data, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	lines, err := parseMaps(data)
	if err != nil {
		return err
	}
	for _, l := range lines {
		const afterProgram = 1 << 28 // its data has no name in maps either, but low addresses
		ours := l.start >= controlBase && l.end <= bufferBase+bufferSize
		if ours || l.start < afterProgram || l.name != "" && l.name != "[stack]" && !strings.HasPrefix(l.name, "[anon:") {
			continue
		}
		if _, err := z.call(unix.SYS_MUNMAP, l.start, l.end-l.start); err != nil {
			return fmt.Errorf("giving up %#x-%#x: %w", l.start, l.end, err)
		}
	}
	return nil
}

// handleSignals installs the handler of faults.
func (z *zygote) handleSignals() error {
	handler, restorer := entries()
	const saSiginfo, saRestorer = 4, 0x4000000
	act := z.putWords(0, handler, saSiginfo|saRestorer, restorer, 0)
	for _, signal := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS} {
		if _, err := z.call(unix.SYS_RT_SIGACTION, uintptr(signal), act, 0, 8); err != nil {
			return fmt.Errorf("rt_sigaction: %w", err)
		}
	}
	return nil
}

// setLimit makes RLIMIT_MEMLOCK the same everywhere.
func (z *zygote) setLimit() error {
	const limit = 8 << 20 // what Linux begins with: raising it natively takes a privilege
	if _, err := z.call(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_MEMLOCK, z.putWords(0, limit, limit), 0); err != nil {
		return fmt.Errorf("prlimit: %w", err)
	}
	return nil
}

// dropCapability makes RLIMIT_MEMLOCK count, which means nothing to who may lock what he wants.
func (z *zygote) dropCapability() error {
	header := z.putWords(0, unix.LINUX_CAPABILITY_VERSION_3, 0)
	data := uintptr(unsafe.Pointer(&z.scratch[64]))
	if _, err := z.call(unix.SYS_CAPGET, header, data); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for _, set := range []int{64, 68} { // effective, permitted
		*(*uint32)(unsafe.Pointer(&z.scratch[set])) &^= 1 << unix.CAP_IPC_LOCK
	}
	*(*uint32)(unsafe.Pointer(&z.scratch[72])) = 0 // inheritable
	header = z.putWords(0, unix.LINUX_CAPABILITY_VERSION_3, 0)
	if _, err := z.call(unix.SYS_CAPSET, header, data); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
