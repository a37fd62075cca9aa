package program

import (
	"fmt"
	"strconv"
	"strings"
)

// String is the step in one line: who, what, with which arguments.
func (s Step) String() string {
	words := []string{s.Actor.String(), s.Op.Name}
	for i, kind := range s.Op.Args {
		words = append(words, kind.Text(s.Args[i]))
	}
	return strings.Join(words, " ")
}

// ParseStep is the reverse of String.
func ParseStep(line string) (Step, error) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return Step{}, fmt.Errorf("no step: %q", line)
	}
	actor, err := KindActor.Parse(words[0])
	if err != nil || actor < 0 || actor >= int64(Actors) {
		return Step{}, fmt.Errorf("no actor: %q", words[0])
	}
	s := Step{Actor: Actor(actor), Op: opByName[words[1]]}
	if s.Op == nil {
		return s, fmt.Errorf("no operation: %q", words[1])
	}
	if len(words)-2 != len(s.Op.Args) {
		return s, fmt.Errorf("%s has %d arguments, not %d: %q", s.Op.Name, len(s.Op.Args), len(words)-2, line)
	}
	for i, kind := range s.Op.Args {
		v, err := kind.Parse(words[i+2])
		if err != nil {
			return s, fmt.Errorf("%w in %q", err, line)
		}
		s.Args = append(s.Args, v)
	}
	return s, nil
}

// String is the program as text: a line for the seed, one for Probe, and one for each step.
func (p *Program) String() string {
	var b strings.Builder
	if p.Seed != 0 {
		fmt.Fprintf(&b, "seed %d\n", p.Seed)
	}
	fmt.Fprintf(&b, "probe %d\n", p.Probe)
	for _, s := range p.Steps {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

// Parse is the reverse of String. Empty lines and comments, from # to the end of the line, say nothing.
func Parse(text string) (*Program, error) {
	p := &Program{Probe: 1}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var err error
		switch words[0] {
		case "seed":
			p.Seed, err = strconv.ParseUint(strings.Join(words[1:], " "), 10, 64)
		case "probe":
			p.Probe, err = strconv.Atoi(strings.Join(words[1:], " "))
			if err == nil && p.Probe < 1 {
				err = fmt.Errorf("probe has to be 1 or more, not %d", p.Probe)
			}
		default:
			var s Step
			s, err = ParseStep(line)
			p.Steps = append(p.Steps, s)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of a program: %w", number, err)
		}
	}
	return p, nil
}
