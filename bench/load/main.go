// Load for the bench, and what it is sent to: one program for two containers, of Go's own library alone.
//
//	load serve ADDRESS SECONDS   the stand-in for Ollama (standin.go); ends by itself
//	load ask                     one job from stdin as JSON, its result to stdout (ask.go)
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"time"
)

func main() {
	// Rare pauses for garbage: they would be measured as if they were somebody else's.
	debug.SetGCPercent(800)
	switch {
	case len(os.Args) == 4 && os.Args[1] == "serve":
		seconds, err := strconv.Atoi(os.Args[3])
		check(err)
		time.AfterFunc(time.Duration(seconds)*time.Second, func() { os.Exit(0) })
		check(serve(os.Args[2]))
	case len(os.Args) == 2 && os.Args[1] == "ask":
		var job Job
		check(json.NewDecoder(os.Stdin).Decode(&job))
		result, err := ask(job)
		check(err)
		check(json.NewEncoder(os.Stdout).Encode(result))
	default:
		check(fmt.Errorf("usage: load serve ADDRESS SECONDS | load ask < job.json"))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}
