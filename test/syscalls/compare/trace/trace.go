// Package trace is what a run of a program observed, step by step: the engine writes it, and two of
// them are compared.
package trace

// A Step is what was observed after one step of a program.
type Step struct {
	// Result is what the step returned: a number, an address relative to the arena or a slot, the name
	// of an error or of a signal.
	Result string `json:"r"`
	// Views are those that are not what they were after the step before.
	Views []View `json:"v,omitempty"`
	// Error is why the program could not go on: a failure of the engine and not of a step.
	Error string `json:"e,omitempty"`
}

// A View is one aspect of one process.
type View struct {
	Process string   `json:"p"`
	Aspect  string   `json:"a"`
	Lines   []string `json:"l"`
}

// The aspects.
const (
	Maps  = "maps"  // lines of /proc/[pid]/maps
	Pages = "pages" // what a load of each page finds, as ranges
	Smaps = "smaps" // size and flags in /proc/[pid]/smaps
	Usage = "usage" // VmSize and VmData of /proc/[pid]/status, less what they were in the beginning
)

// Key names the view among those of a step.
func (v View) Key() string { return v.Process + " " + v.Aspect }
