// Program kubectl-server runs kubectl's commands in one process. A process for
// each command would cost a lab more processor time than its API server does.
//
// The program listens on the Unix socket that its argument names. Each
// connection carries one JSON request and one JSON answer, like the requests
// of e2e/src/control.rs.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"sync"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

type request struct {
	Args  []string `json:"args"`
	Stdin string   `json:"stdin"`
}

type response struct {
	Status int    `json:"status"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

// exit is the value of the panic with which a command of kubectl ends, instead
// of ending the process.
type exit struct {
	message string
	code    int
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: kubectl-server SOCKET")
	}
	util.BehaviorOnFatal(func(message string, code int) {
		panic(exit{message, code})
	})
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(connection)
	}
}

func serve(connection net.Conn) {
	defer connection.Close()
	var asked request
	if err := json.NewDecoder(connection).Decode(&asked); err != nil {
		log.Printf("a request that cannot be read: %v", err)
		return
	}
	answer, err := answer(asked)
	if err != nil {
		answer = response{Status: -1, Stderr: err.Error()}
	}
	if err := json.NewEncoder(connection).Encode(answer); err != nil {
		log.Printf("an answer that cannot be sent: %v", err)
	}
}

// standardInput is locked while os.Stdin is the input of one command: kubectl
// reads `-f -` from there, whatever its streams are.
var standardInput sync.Mutex

func answer(asked request) (response, error) {
	if asked.Stdin != "" {
		standardInput.Lock()
		defer standardInput.Unlock()
		input, err := inputFile(asked.Stdin)
		if err != nil {
			return response{}, err
		}
		defer input.Close()
		before := os.Stdin
		os.Stdin = input
		defer func() { os.Stdin = before }()
	}
	return run(asked.Args), nil
}

// inputFile returns an open file with a command's input. The file has no name
// any more.
func inputFile(text string) (*os.File, error) {
	file, err := os.CreateTemp("", "kubectl-input")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, err
	}
	if _, err := file.WriteString(text); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, 0); err != nil {
		return nil, err
	}
	return file, nil
}

func run(args []string) (answer response) {
	var stdout, stderr output
	defer func() {
		switch end := recover().(type) {
		case nil:
		case exit:
			answer.Status = end.code
			if end.message != "" {
				fmt.Fprintln(&stderr, strings.TrimSuffix(end.message, "\n"))
			}
		default:
			panic(end)
		}
		answer.Stdout, answer.Stderr = stdout.String(), stderr.String()
	}()
	command := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		Arguments: append([]string{"kubectl"}, args...),
		IOStreams: genericiooptions.IOStreams{In: os.Stdin, Out: &stdout, ErrOut: &stderr},
	})
	command.SetArgs(args)
	command.SetOut(&stdout)
	command.SetErr(&stderr)
	if err := cli.RunNoErrOutput(command); err != nil {
		util.CheckErr(err)
	}
	return answer
}

// output is what a command wrote. Several goroutines of it may write.
type output struct {
	lock sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(text []byte) (int, error) {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.text.Write(text)
}

func (o *output) String() string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.text.String()
}
