// The stand-in for Ollama: answers in Ollama's or OpenAI's shape, at the pace that the prompt asks for.
//
// A prompt begins with CHUNKS and PAUSE_MS ("50 20 and more words"). The content of each chunk is the time at which it
// was written, in nanoseconds: 19 digits that whatever lies between may wrap, but not change.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Bodies above this are read and not understood: the stand-in must not be what is measured.
const understood = 64 * 1024

type request struct {
	Stream   *bool
	Messages []struct{ Content json.RawMessage }
	Prompt   string
}

func serve(address string) error {
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(answer)}
	fmt.Println("ready")
	return server.ListenAndServe()
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, list(r.URL.Path))
		return
	}
	openai := strings.HasPrefix(r.URL.Path, "/v1/")
	stream, chunks, pause := wanted(body, openai)
	if !stream {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, whole(openai))
		return
	}
	w.Header().Set("Content-Type", map[bool]string{true: "text/event-stream", false: "application/x-ndjson"}[openai])
	flusher := w.(http.Flusher)
	started := time.Now()
	for i := 0; i < chunks; i++ {
		time.Sleep(time.Until(started.Add(time.Duration(i) * pause)))
		if _, err := io.WriteString(w, chunk(openai)); err != nil {
			return
		}
		flusher.Flush()
	}
	io.WriteString(w, end(openai, chunks))
}

// Who does not say gets a stream from Ollama's own routes, and none from OpenAI's.
func wanted(body []byte, openai bool) (bool, int, time.Duration) {
	said := request{}
	chunks, pause := 1, 0
	if len(body) > understood || json.Unmarshal(body, &said) != nil {
		return false, 0, 0
	}
	prompt := said.Prompt
	if len(said.Messages) > 0 {
		// A text, or a list of parts of which one has it.
		prompt = strings.TrimLeft(string(said.Messages[0].Content), `[{"typex:, `)
	}
	fmt.Sscanf(prompt, "%d %d", &chunks, &pause)
	stream := !openai
	if said.Stream != nil {
		stream = *said.Stream
	}
	return stream, chunks, time.Duration(pause) * time.Millisecond
}

func stamp() int64 { return time.Now().UnixNano() }

func chunk(openai bool) string {
	if openai {
		return fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",`+
			`"system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"%d"},`+
			`"finish_reason":null}]}`+"\n\n", stamp())
	}
	return fmt.Sprintf(`{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant",`+
		`"content":"%d"},"done":false}`+"\n", stamp())
}

func end(openai bool, chunks int) string {
	if openai {
		return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny","system_fingerprint":` +
			`"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}` +
			"\n\n" + fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",`+
			`"system_fingerprint":"fp_ollama","choices":[],"usage":{"prompt_tokens":26,"completion_tokens":%d,`+
			`"total_tokens":%d}}`+"\n\ndata: [DONE]\n\n", chunks, 26+chunks)
	}
	return fmt.Sprintf(`{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},`+
		`"done_reason":"stop","done":true,"total_duration":1,"load_duration":1,"prompt_eval_count":26,`+
		`"prompt_eval_duration":1,"eval_count":%d,"eval_duration":1}`+"\n", chunks)
}

func whole(openai bool) string {
	if openai {
		return fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"tiny","system_fingerprint":`+
			`"fp_ollama","choices":[{"index":0,"message":{"role":"assistant","content":"%d"},"finish_reason":"stop"}],`+
			`"usage":{"prompt_tokens":26,"completion_tokens":3,"total_tokens":29}}`+"\n", stamp())
	}
	return fmt.Sprintf(`{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"%d"},`+
		`"done_reason":"stop","done":true,"total_duration":1,"load_duration":1,"prompt_eval_count":26,`+
		`"prompt_eval_duration":1,"eval_count":3,"eval_duration":1}`, stamp())
}

func list(path string) string {
	switch path {
	case "/v1/models":
		return `{"object":"list","data":[{"id":"tiny","object":"model","created":1,"owned_by":"library"}]}`
	case "/api/version":
		return `{"version":"0.32.15"}`
	}
	return `{"models":[{"name":"tiny:latest","model":"tiny:latest","size":1}]}`
}
