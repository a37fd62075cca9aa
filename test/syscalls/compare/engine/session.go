package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// A session is one run of a program.
type session struct {
	zygote    *zygote
	program   *program.Program
	actors    [program.Actors]*actor
	processes []*process // that live or have ended, in the order in which they began
	handles   [program.Handles]int
	segments  [program.Segments]int // identifiers of SysV segments
	made      []int                 // all that are to be removed
	usesHeap  bool
	last      bool // this is the last step
}

// run runs a program and emits what it observes.
func (z *zygote) run(p *program.Program, emit func(any) error) (err error) {
	s := &session{zygote: z, program: p}
	for i := range s.segments {
		s.segments[i] = -1
	}
	s.usesHeap = usesHeap(p)
	defer func() { err = errors.Join(err, s.end()) }()
	if err := s.begin(); err != nil {
		return err
	}
	views, err := s.look(true, nil)
	if err != nil {
		return err
	}
	if err := emit(trace.Step{Result: "begin", Views: views}); err != nil {
		return err
	}
	for i, step := range p.Steps {
		result, err := s.do(step)
		if err != nil {
			return fmt.Errorf("step %d, %v: %w", i+1, step, err)
		}
		s.last = i+1 == len(p.Steps)
		views, err := s.look(s.last || (i+1)%p.Probe == 0, s.actors[step.Actor])
		if err != nil {
			return fmt.Errorf("after step %d, %v: %w", i+1, step, err)
		}
		if err := emit(trace.Step{Result: result, Views: views}); err != nil {
			return err
		}
	}
	return nil
}

func usesHeap(p *program.Program) bool {
	for _, s := range p.Steps {
		for i, kind := range s.Op.Args {
			if kind == program.KindAddr && program.Address(s.Args[i]).Region() == program.Heap {
				return true
			}
		}
	}
	return false
}

// begin makes the first process, its threads and its files.
func (s *session) begin() error {
	for slot := range int(program.Actors) {
		*control_(slot) = control{}
	}
	got, err := s.zygote.do(opFork, 0, controlBase)
	if err == nil && got.errno != 0 {
		err = unix.Errno(got.errno)
	}
	if err != nil {
		return fmt.Errorf("fork of the zygote: %w", err)
	}
	main := s.addProcess(program.Main, int(got.value), &process{})
	if err := main.endWithParent(); err != nil {
		return err
	}
	if err := s.openHandles(main); err != nil {
		return err
	}
	for _, name := range []program.Actor{program.Thread1, program.Thread2} {
		if s.program.Uses(name) {
			if err := s.addThread(name); err != nil {
				return err
			}
		}
	}
	if main.process.heap, err = main.call(unix.SYS_BRK, 0); err != nil {
		return err
	}
	main.process.base, err = main.process.usage()
	return err
}

// addProcess makes the actor of a process that was forked from another one.
func (s *session) addProcess(name program.Actor, pid int, parent *process) *actor {
	p := *parent
	p.name, p.pid, p.seen, p.absent = name, pid, map[string]string{}, map[uintptr]string{}
	a := &actor{control: control_(int(name)), name: name, process: &p, tid: pid}
	p.leader = a
	s.actors[name] = a
	s.processes = append(s.processes, &p)
	return a
}

func (s *session) addThread(name program.Actor) error {
	const flags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	main := s.actors[program.Main]
	got, err := main.do(opThread, 0, flags, stackTop(int(name)), controlBase+uintptr(name)*controlSpace)
	if err != nil {
		return err
	}
	if tid := int(got.value); tid > 0 {
		s.actors[name] = &actor{control: control_(int(name)), name: name, process: main.process, tid: tid}
		return nil
	}
	return fmt.Errorf("clone of a thread: %w", unix.Errno(-int(got.value)))
}

// end ends all that the program made.
func (s *session) end() error {
	var errs []error
	for _, p := range s.processes {
		errs = append(errs, p.kill())
	}
	for _, id := range s.made {
		if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil && err != unix.EINVAL && err != unix.EIDRM {
			errs = append(errs, fmt.Errorf("removing a segment: %w", err))
		}
	}
	return errors.Join(errs...)
}

// alive are the processes that have not ended.
func (s *session) alive() []*process {
	var alive []*process
	for _, p := range s.processes {
		if p.died == nil {
			alive = append(alive, p)
		}
	}
	return alive
}
