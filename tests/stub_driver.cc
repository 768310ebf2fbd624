// A stub of libcuda.so.1 with no GPU, or with one that cannot compute. The environment variable STUB_DRIVER selects the
// behaviour: "none" for no GPU, a compute capability such as "9.0" for one GPU, or "broken" for error 999. The stub has the
// functions that mnist_trainer.runtime.nvidia calls, and those that MXNet's GPU build and CUDA's libraries need to load.
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kNoDevice = 100, kInvalidValue = 1, kUnknown = 999;

const char* shown() {
    const char* value = std::getenv("STUB_DRIVER");
    return value ? value : "none";
}

bool is_broken() { return std::strcmp(shown(), "broken") == 0; }
bool has_device() { return std::strchr(shown(), '.') != nullptr; }

}  // namespace

extern "C" {

int cuInit(unsigned) { return is_broken() ? kUnknown : has_device() ? 0 : kNoDevice; }

int cuDriverGetVersion(int* version) {
    *version = 11080;
    return 0;
}

int cuDeviceGetCount(int* count) {
    *count = has_device() ? 1 : 0;
    return is_broken() ? kUnknown : 0;
}

int cuDeviceGet(int* device, int number) {
    *device = number;
    return has_device() && number == 0 ? 0 : kInvalidValue;
}

int cuDeviceGetName(char* name, int length, int) {
    std::snprintf(name, static_cast<size_t>(length), "Stub GPU");
    return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    int major = 0, minor = 0;
    std::sscanf(shown(), "%d.%d", &major, &minor);
    *value = attribute == 75 ? major : attribute == 76 ? minor : 0;
    return 0;
}

int cuGetErrorString(int, const char** words) {
    *words = "unknown error";
    return 0;
}

// MXNet's GPU build looks up these functions when it is loaded. They are never called without a device.
#define UNKNOWN(name) \
    int name() { return kUnknown; }
UNKNOWN(cuDevicePrimaryCtxRetain)
UNKNOWN(cuGraphKernelNodeGetParams)
UNKNOWN(cuGraphNodeGetType)
UNKNOWN(cuLaunchKernel)
UNKNOWN(cuModuleGetFunction)
UNKNOWN(cuModuleLoadData)
UNKNOWN(cuModuleLoadDataEx)
UNKNOWN(cuModuleUnload)

}
