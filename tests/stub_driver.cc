// A libcuda.so.1 that has no GPU, or one that nobody can compute on: what it shows is in STUB_DRIVER, "none" or a compute
// capability such as "9.0"; "broken" answers everything with error 999. Enough of the driver for the questions of
// mnist_trainer.runtime.nvidia, and for MXNet's GPU build and CUDA's own libraries to be loaded beside it.
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

// What else MXNet's GPU build asks for by name when it is loaded; nobody calls it without a device.
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
