// What Ollama would make of a request, said by Ollama's own structs and conversions: the oracle of the body policy.
//
// It is built beside the kit's go.mod for Ollama (offline/ollama), so that it always judges by the version pinned there.
// `oracle keys` prints the JSON keys of every request struct; `oracle` answers one JSON line for each one it reads:
// {"path": "/api/chat", "body": "<base64>"} -> what would be obeyed, or {"refused": "..."}.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/ollama/ollama/anthropic"
	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/openai"
	"github.com/ollama/ollama/types/model"
)

type asked struct {
	Path string `json:"path"`
	Body []byte `json:"body"`
}

// A model as the request writes it, and the whole name that Ollama looks for.
type named struct {
	Written string `json:"written"`
	Whole   string `json:"whole"`
}

type answer struct {
	Refused   string         `json:"refused,omitempty"`
	Models    []named        `json:"models,omitempty"`
	KeepAlive bool           `json:"keep_alive,omitempty"`
	Options   map[string]any `json:"options,omitempty"`
	Debug     bool           `json:"debug,omitempty"`
	Search    bool           `json:"search,omitempty"`
}

var structs = []any{
	api.GenerateRequest{}, api.ChatRequest{}, api.EmbedRequest{}, api.EmbeddingRequest{}, api.ShowRequest{}, api.CopyRequest{},
	api.DeleteRequest{}, api.CreateRequest{}, api.Options{}, openai.ChatCompletionRequest{}, openai.CompletionRequest{},
	openai.EmbedRequest{}, openai.ResponsesRequest{}, openai.StreamOptions{}, anthropic.MessagesRequest{},
}

func names(written ...string) (all []named) {
	for _, each := range written {
		all = append(all, named{each, model.ParseName(each).String()})
	}
	return all
}

// As gin's ShouldBindJSON does: one value is decoded, whatever follows it stays unread.
func decode[T any](body []byte) (request T, err error) {
	err = json.NewDecoder(bytes.NewReader(body)).Decode(&request)
	return request, err
}

func generated(r api.GenerateRequest) answer {
	return answer{Models: names(r.Model), KeepAlive: r.KeepAlive != nil, Options: r.Options, Debug: r.DebugRenderOnly}
}

func chatted(r *api.ChatRequest, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return answer{Models: names(r.Model), KeepAlive: r.KeepAlive != nil, Options: r.Options, Debug: r.DebugRenderOnly}, nil
}

func obeyed(path string, body []byte) (answer, error) {
	switch path {
	case "/api/generate":
		r, err := decode[api.GenerateRequest](body)
		return generated(r), err
	case "/api/chat":
		r, err := decode[api.ChatRequest](body)
		return chatted(&r, err)
	case "/api/embed":
		r, err := decode[api.EmbedRequest](body)
		return answer{Models: names(r.Model), KeepAlive: r.KeepAlive != nil, Options: r.Options}, err
	case "/api/embeddings":
		r, err := decode[api.EmbeddingRequest](body)
		return answer{Models: names(r.Model), KeepAlive: r.KeepAlive != nil, Options: r.Options}, err
	case "/api/show":
		r, err := decode[api.ShowRequest](body)
		return answer{Models: names(r.Model, r.Name), Options: r.Options}, err
	case "/api/copy":
		r, err := decode[api.CopyRequest](body)
		return answer{Models: names(r.Source, r.Destination)}, err
	case "/v1/chat/completions":
		r, err := decode[openai.ChatCompletionRequest](body)
		if err != nil {
			return answer{}, err
		}
		return chatted(openai.FromChatRequest(r))
	case "/v1/completions":
		r, err := decode[openai.CompletionRequest](body)
		if err != nil {
			return answer{}, err
		}
		converted, err := openai.FromCompleteRequest(r)
		return generated(converted), err
	case "/v1/embeddings":
		r, err := decode[openai.EmbedRequest](body)
		return answer{Models: names(r.Model)}, err
	case "/v1/responses":
		r, err := decode[openai.ResponsesRequest](body)
		if err != nil {
			return answer{}, err
		}
		said, err := chatted(openai.FromResponsesRequest(r))
		said.Search = openai.HasWebSearchTool(r.Tools)
		return said, err
	case "/v1/messages":
		r, err := decode[anthropic.MessagesRequest](body)
		if err != nil {
			return answer{}, err
		}
		said, err := chatted(anthropic.FromMessagesRequest(r))
		for _, tool := range r.Tools {
			said.Search = said.Search || strings.HasPrefix(tool.Type, "web_search")
		}
		return said, err
	}
	return answer{}, fmt.Errorf("no such path: %s", path)
}

// The /v1 routes hand their options on as JSON, and only then are these read.
func options(said *answer) error {
	written, err := json.Marshal(said.Options)
	if err != nil {
		return err
	}
	said.Options = nil
	if err := json.Unmarshal(written, &said.Options); err != nil {
		return err
	}
	read := api.DefaultOptions()
	return read.FromMap(said.Options)
}

func judge(line []byte) answer {
	var request asked
	if err := json.Unmarshal(line, &request); err != nil {
		panic(err)
	}
	said, err := obeyed(request.Path, request.Body)
	if err == nil && said.Options != nil {
		err = options(&said)
	}
	if err != nil {
		return answer{Refused: err.Error()}
	}
	return said
}

func keys() map[string][]string {
	found := map[string][]string{}
	for _, request := range structs {
		kind := reflect.TypeOf(request)
		for _, field := range reflect.VisibleFields(kind) {
			if key, _, _ := strings.Cut(field.Tag.Get("json"), ","); key != "" && key != "-" {
				found[kind.String()] = append(found[kind.String()], key)
			}
		}
	}
	return found
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	if len(os.Args) > 1 && os.Args[1] == "keys" {
		_ = encoder.Encode(keys())
		return
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		if err := encoder.Encode(judge(lines.Bytes())); err != nil {
			panic(err)
		}
	}
}
