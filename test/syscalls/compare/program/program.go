// Package program describes programs of memory system calls: what a step is, how programs are
// generated from a seed, written as text, made smaller, and printed as Go tests.
//
// A program says nothing about results. It runs on any kernel, and what it observes there is compared.
package program

import (
	"slices"
)

// A Program is a sequence of steps, carried out one at a time.
type Program struct {
	// Seed is what it was generated from, or 0.
	Seed uint64
	// Probe is after how many steps all pages are read; 1 is after each. Reading makes pages, so a
	// program that is probed seldom goes other ways through the kernel.
	Probe int
	Steps []Step
}

// A Step is one thing that one actor does.
type Step struct {
	Actor Actor
	Op    *Op
	// Args has a value for each of Op.Args; see the kinds for what they mean.
	Args []int64
}

// Clone is a copy that shares nothing.
func (p *Program) Clone() *Program {
	c := *p
	c.Steps = make([]Step, len(p.Steps))
	for i, s := range p.Steps {
		c.Steps[i] = s.Clone()
	}
	return &c
}

// Clone is a copy that shares nothing.
func (s Step) Clone() Step {
	s.Args = slices.Clone(s.Args)
	return s
}

// Uses reports whether some step is by the actor, or has it as an argument.
func (p *Program) Uses(actor Actor) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		if s.Actor == actor {
			return true
		}
		v, ok := s.Arg(KindActor)
		return ok && Actor(v) == actor
	})
}

// UsesHandle reports whether some step has the handle as an argument.
func (p *Program) UsesHandle(h Handle) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		v, ok := s.Arg(KindHandle)
		return ok && Handle(v) == h
	})
}

// Has reports whether some step has an argument of the kind with all of these flags.
func (p *Program) Has(kind *Kind, flags int64) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		v, ok := s.Arg(kind)
		return ok && v&flags == flags
	})
}

// Arg is the first argument of a kind.
func (s Step) Arg(kind *Kind) (int64, bool) {
	for i, k := range s.Op.Args {
		if k == kind {
			return s.Args[i], true
		}
	}
	return 0, false
}

// An Actor is who does a step.
type Actor int

// The actors. Threads exist from the beginning, children when they are forked.
const (
	Main Actor = iota
	Thread1
	Thread2
	Child1
	Child2
	Child3
	Actors // how many there are
)

// IsThread reports whether the actor is a second thread of the first process.
func (a Actor) IsThread() bool { return a == Thread1 || a == Thread2 }

// IsChild reports whether the actor is a forked process.
func (a Actor) IsChild() bool { return a >= Child1 }

// String is the actor's name in programs.
func (a Actor) String() string { return KindActor.Text(int64(a)) }

// A Handle is an open file. All actors have the same ones, from the beginning.
type Handle int

// The handles. Files have FilePages pages, with the bytes that kit gives them.
const (
	NoFile   Handle = -1
	Disk     Handle = iota - 1 // a file on the machine's file system
	DiskRead                   // the same file, opened a second time for reading
	Tmpfs                      // a file in memory
	Memfd                      // a memfd, which may be sealed
	Sealed                     // a memfd that refuses seals
	Zero                       // /dev/zero
	PipeRead                   // both ends of a pipe; neither blocks
	PipeWrite
	Handles // how many there are
)

// FilePages is the length of files, in pages.
const FilePages = 4

// Slots is how many mappings at addresses that the kernel chose are remembered.
const Slots = 6

// Segments is how many SysV segments a program can have, and Contexts how many of AIO.
const (
	Segments = 3
	Contexts = 2
)
